#include "comm/gloo_threads.h"

#ifdef __linux__
#include <sched.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

namespace evenspan::comm {

void calm_gloo_loops() {
  std::error_code none;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", none)) {
    std::string name;
    std::getline(std::ifstream(thread.path() / "comm"), name);
    if (name != "gloo_tcp_loop") continue;
    const auto id = static_cast<pid_t>(std::stol(thread.path().filename().string()));
    const sched_param normal{};
    if (sched_getscheduler(id) == SCHED_OTHER) sched_setscheduler(id, SCHED_BATCH, &normal);
  }
}

}  // namespace evenspan::comm
#else
namespace evenspan::comm {
void calm_gloo_loops() {}
}  // namespace evenspan::comm
#endif
