// Files that the build puts into the program.
#pragma once

namespace evenspan::cli {

// page/page.html, with __DATA__ where its data goes.
extern const char* const kPage;

}  // namespace evenspan::cli
