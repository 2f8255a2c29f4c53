// How the system schedules Gloo's threads.
#pragma once

namespace evenspan::comm {

// Lets no event loop of Gloo in this process preempt the thread that hands it work. A loop that finds a connection
// locked asks again at once, and for ever: when its thread has taken the core from the one that holds the lock, both
// wait for the system's next tick, some milliseconds, in many an exchange. Under SCHED_BATCH a loop gets the core when
// the other thread waits or its time is over. Threads whose policy is not the system's usual one stay as they are.
// Does nothing on other systems than Linux.
void calm_gloo_loops();

}  // namespace evenspan::comm
