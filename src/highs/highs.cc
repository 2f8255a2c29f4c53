#include "evenspan/highs/highs.h"

#include <dlfcn.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>

#include "evenspan/core/error.h"

namespace evenspan::highs {
namespace {

using Int = int32_t;  // HighsInt of the published builds; make_library() makes sure

constexpr Int kRowwise = 2, kMinimize = 1, kContinuous = 0, kInteger = 1;  // constants of highs_c_api.h
constexpr Int kError = -1;
constexpr Int kOptimal = 7, kInfeasible = 8;

struct CloseLibrary {
  void operator()(void* library) const { dlclose(library); }
};

// The functions that are called, of HiGHS's C interface (highs_c_api.h).
struct Library {
  std::unique_ptr<void, CloseLibrary> handle;
  void* (*create)() = nullptr;
  void (*destroy)(void*) = nullptr;
  Int (*set_bool)(void*, const char*, Int) = nullptr;
  Int (*set_int)(void*, const char*, Int) = nullptr;
  Int (*set_double)(void*, const char*, double) = nullptr;
  Int (*pass)(void*, Int, Int, Int, Int, Int, double, const double*, const double*, const double*, const double*,
              const double*, const Int*, const Int*, const double*, const Int*) = nullptr;
  Int (*set_solution)(void*, const double*, const double*, const double*, const double*) = nullptr;
  Int (*run)(void*) = nullptr;
  Int (*status)(const void*) = nullptr;
  Int (*get_solution)(const void*, double*, double*, double*, double*) = nullptr;
  Int (*get_int)(const void*, const char*, Int*) = nullptr;
  Int (*get_double)(const void*, const char*, double*) = nullptr;
  Int (*size_of_int)(const void*) = nullptr;
};

template <class Function>
bool find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

// False where a function is missing.
bool fill(Library* l) {
  void* from = l->handle.get();
  return find(from, "Highs_create", &l->create) && find(from, "Highs_destroy", &l->destroy) &&
         find(from, "Highs_setBoolOptionValue", &l->set_bool) && find(from, "Highs_setIntOptionValue", &l->set_int) &&
         find(from, "Highs_setDoubleOptionValue", &l->set_double) && find(from, "Highs_passMip", &l->pass) &&
         find(from, "Highs_setSolution", &l->set_solution) && find(from, "Highs_run", &l->run) &&
         find(from, "Highs_getModelStatus", &l->status) && find(from, "Highs_getSolution", &l->get_solution) &&
         find(from, "Highs_getIntInfoValue", &l->get_int) && find(from, "Highs_getDoubleInfoValue", &l->get_double) &&
         find(from, "Highs_getSizeofHighsInt", &l->size_of_int);
}

// A model of HiGHS.
class Model {
 public:
  explicit Model(const Library& library) : library_(library), model_(library.create()) {
    if (model_ == nullptr) fail(ErrorKind::resource, "[highs] HiGHS could not make a model; free some memory");
  }
  ~Model() { library_.destroy(model_); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  void* get() const { return model_; }
  void check(Int status, const char* what) const {
    if (status == kError) fail(ErrorKind::resource, "[highs] HiGHS refused ", what, "; use a release of 1.5 or newer");
  }

 private:
  const Library& library_;
  void* model_;
};

class Highs : public batch::MilpSolver {
 public:
  explicit Highs(Library library) : library_(std::move(library)) {}

  batch::MilpSolution solve(const batch::Milp& milp, const std::vector<double>& start, double most_seconds) override {
    const Model model(library_);
    model.check(library_.set_bool(model.get(), "output_flag", 0), "to be silent");
    model.check(library_.set_int(model.get(), "threads", 1), "to use one thread");
    model.check(library_.set_double(model.get(), "time_limit", most_seconds), "a time limit");
    pass(model, milp);
    if (!start.empty()) {
      EVENSPAN_CHECK_EQ(start.size(), milp.columns.size());
      model.check(library_.set_solution(model.get(), start.data(), nullptr, nullptr, nullptr), "a start");
    }
    model.check(library_.run(model.get()), "to run");
    return result(model, milp);
  }

 private:
  void pass(const Model& model, const batch::Milp& milp) const {
    std::vector<double> cost, lower, upper, row_lower, row_upper, values;
    std::vector<Int> kinds, starts, columns;
    for (const batch::Milp::Column& column : milp.columns) {
      cost.push_back(column.cost);
      lower.push_back(column.lower);
      upper.push_back(column.upper);
      kinds.push_back(column.is_integer ? kInteger : kContinuous);
    }
    for (const batch::Milp::Row& row : milp.rows) {
      row_lower.push_back(row.lower);
      row_upper.push_back(row.upper);
      starts.push_back(static_cast<Int>(values.size()));
      for (const batch::Milp::Entry& entry : row.entries) {
        columns.push_back(entry.column);
        values.push_back(entry.value);
      }
    }
    model.check(
        library_.pass(model.get(), static_cast<Int>(cost.size()), static_cast<Int>(row_lower.size()),
                      static_cast<Int>(values.size()), kRowwise, kMinimize, 0, cost.data(), lower.data(), upper.data(),
                      row_lower.data(), row_upper.data(), starts.data(), columns.data(), values.data(), kinds.data()),
        "a program");
  }

  batch::MilpSolution result(const Model& model, const batch::Milp& milp) const {
    batch::MilpSolution out;
    const Int status = library_.status(model.get());
    out.is_optimal = status == kOptimal;
    library_.get_double(model.get(), "mip_dual_bound", &out.bound);
    if (status == kInfeasible) out.bound = std::numeric_limits<double>::infinity();  // HiGHS may say less
    Int found = 0;
    library_.get_int(model.get(), "primal_solution_status", &found);
    constexpr Int kFeasible = 2;
    if (found != kFeasible) return out;
    std::vector<double> values(milp.columns.size());
    std::vector<double> rows(milp.rows.size());
    model.check(library_.get_solution(model.get(), values.data(), nullptr, rows.data(), nullptr), "its solution");
    out.values = std::move(values);
    return out;
  }

  Library library_;
};

}  // namespace

std::unique_ptr<batch::MilpSolver> open_solver(const std::vector<std::string>& paths) {
  std::string reason = "there is none at ";
  for (const std::string& path : paths) reason += (path == paths.front() ? "" : ", ") + path;
  for (const std::string& path : paths) {
    const bool is_file = path.find('/') != std::string::npos;
    if (is_file && !std::filesystem::exists(path)) continue;
    Library library;
    library.handle.reset(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (library.handle == nullptr) {
      const char* text = dlerror();
      if (is_file && text != nullptr) reason = text;
      continue;
    }
    if (!fill(&library) || library.size_of_int(nullptr) != sizeof(Int)) {
      reason = path + " is no release of HiGHS with 32-bit integers that this program knows";
      continue;
    }
    return std::make_unique<Highs>(std::move(library));
  }
  fail(ErrorKind::resource, "[highs] the library of HiGHS, libhighs.so, cannot be used: ", reason,
       "; install it with `pip install highsbox`, or choose a planner that needs no solver");
}

}  // namespace evenspan::highs
