#include "cli/solver_source.h"

#include <filesystem>
#include <memory>
#include <system_error>
#include <vector>

#include "cli/command_table.h"
#include "evenspan/highs/highs.h"

namespace evenspan::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLibrary = "libhighs.so";
constexpr const char* kInPackages = "highsbox/highs_dist/lib";

std::vector<std::string> usual_paths() {
  std::vector<std::string> paths;
  // A wheel has the program in bin/ and packages in lib/python3.N/site-packages/ of one environment.
  const fs::path environment = program_of("").parent_path().parent_path();
  std::error_code unreadable;
  for (const fs::directory_entry& entry : fs::directory_iterator(environment / "lib", unreadable)) {
    if (!entry.path().filename().string().starts_with("python3")) continue;
    const fs::path path = entry.path() / "site-packages" / kInPackages / kLibrary;
    if (fs::exists(path, unreadable)) paths.push_back(path);
  }
  if (EVENSPAN_HIGHS[0] != '\0') paths.emplace_back(EVENSPAN_HIGHS);
  paths.emplace_back(kLibrary);
  return paths;
}

}  // namespace

batch::SolverSource solver_source(const std::string& path) {
  return [path, solver = std::shared_ptr<batch::MilpSolver>()]() mutable -> batch::MilpSolver& {
    // Absolute, since a name without a slash would be looked for among the system's libraries.
    if (!solver) solver = highs::open_solver(path.empty() ? usual_paths() : std::vector{fs::absolute(path).string()});
    return *solver;
  };
}

}  // namespace evenspan::cli
