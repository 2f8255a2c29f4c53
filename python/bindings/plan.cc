#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/plan_handle.h"
#include "bindings/planner.h"
#include "evenspan/plan/program.h"
#include "evenspan/plan/text.h"

namespace evenspan::python {
namespace {

std::vector<std::vector<std::tuple<int64_t, int64_t, int64_t>>> placement(const PlanHandle& self) {
  std::vector<std::vector<std::tuple<int64_t, int64_t, int64_t>>> ranks;
  for (int32_t r = 0; r < self.plan->placement.num_ranks(); ++r) {
    auto& spans = ranks.emplace_back();
    for (const auto& [document, span] : self.plan->placement.spans(Rank(r))) {
      spans.emplace_back(document.value, span.begin, span.end);
    }
  }
  return ranks;
}

}  // namespace

void bind_plan(py::module_& m) {
  m.attr("DEFAULT_STRATEGY") = plan::kDefaultStrategy;
  py::class_<PlanHandle, std::shared_ptr<PlanHandle>>(m, "Plan")
      .def_property_readonly("lengths",
                             [](const PlanHandle& p) {
                               std::vector<int64_t> lengths;
                               for (const auto& d : p.plan->request.documents.all()) lengths.push_back(d.length);
                               return lengths;
                             })
      .def_property_readonly("ranks", [](const PlanHandle& p) { return p.plan->request.num_ranks(); })
      .def_property_readonly("strategy", [](const PlanHandle& p) { return p.plan->request.options.strategy; })
      .def_property_readonly("heads", [](const PlanHandle& p) { return p.plan->request.shape.num_heads; })
      .def_property_readonly("kv_heads", [](const PlanHandle& p) { return p.plan->request.shape.num_kv_heads; })
      .def_property_readonly("head_dim", [](const PlanHandle& p) { return p.plan->request.shape.head_dim; })
      .def_property_readonly("dtype",
                             [](const PlanHandle& p) { return std::string(to_string(p.plan->request.shape.element)); })
      .def_property_readonly("num_tokens", [](const PlanHandle& p) { return p.plan->request.documents.total_tokens(); })
      .def_property_readonly("placement", placement)
      .def_property_readonly("tokens", [](const PlanHandle& p) { return p.metrics().tokens; })
      .def_property_readonly("pairs", [](const PlanHandle& p) { return p.metrics().pairs; })
      .def_property_readonly("work", [](const PlanHandle& p) { return p.metrics().work_seconds; })
      .def_property_readonly("sent_bytes", [](const PlanHandle& p) { return p.metrics().sent_bytes; })
      .def_property_readonly("metrics",
                             [](const PlanHandle& p) {
                               py::dict out;
                               out["tokens_max_over_mean"] = p.metrics().tokens_max_over_mean;
                               out["work_max_over_mean"] = p.metrics().work_max_over_mean;
                               out["sent_bytes_total"] = p.metrics().sent_bytes_total;
                               out["ring_bytes_total"] = p.metrics().ring_bytes_total;
                               return out;
                             })
      .def(
          "with_mask",
          [](const PlanHandle& p, const py::object& mask) {
            const auto read = py::module_::import("evenspan._arguments")
                                  .attr("one_mask_or_more")("with_mask", mask)
                                  .cast<MaskArgument>();
            const py::gil_scoped_release unlocked;
            std::vector<int64_t> lengths;
            for (const auto& d : p.plan->request.documents.all()) lengths.push_back(d.length);
            return PlanHandle(plan::make_plan_on(*p.plan, make_documents(lengths, read)));
          },
          py::arg("mask"))
      .def_property_readonly("hash", [](const PlanHandle& p) { return p.plan->hash.combined(); })
      .def("__copy__", [](const py::object& self) { return self; })
      .def("__deepcopy__", [](const py::object& self, const py::dict&) { return self; })
      .def(
          "text", [](const PlanHandle& p) { return plan::print(plan::lower_all(*p.plan)); }, Unlocked());
  py::class_<Planner, std::shared_ptr<Planner>>(m, "Planner")
      .def(py::init([](int32_t ranks, int32_t ranks_per_node, const std::optional<std::string>& topology,
                       const std::string& strategy, int32_t heads, int32_t kv_heads, int32_t head_dim,
                       const std::string& dtype, double token_slack, int32_t ranks_per_group, int64_t memory_budget,
                       const std::optional<std::string>& profile, const ModelArgument& model,
                       const LayersArgument& layers, int64_t capacity) {
             return std::make_shared<Planner>(PlannerOptions{ranks, ranks_per_node, topology, strategy, heads, kv_heads,
                                                             head_dim, dtype, token_slack, ranks_per_group,
                                                             memory_budget, profile, model, layers, capacity});
           }),
           Unlocked(), py::kw_only(), py::arg("ranks"), py::arg("ranks_per_node"), py::arg("topology"),
           py::arg("strategy"), py::arg("heads"), py::arg("kv_heads"), py::arg("head_dim"), py::arg("dtype"),
           py::arg("token_slack"), py::arg("ranks_per_group"), py::arg("memory_budget"), py::arg("profile"),
           py::arg("model"), py::arg("layers"), py::arg("capacity"))
      .def("prefetch", &Planner::prefetch, Unlocked(), py::arg("lengths"), py::arg("mask"))
      .def("plans", &Planner::plans, Unlocked(), py::arg("lengths"), py::arg("mask"))
      .def("plan_of_groups", &Planner::plan_of_groups, Unlocked(), py::arg("lengths"), py::arg("mask"),
           py::arg("groups"))
      .def("micro_batches", &Planner::micro_batches, Unlocked(), py::arg("lengths"), py::arg("tokens"),
           py::arg("planner"))
      .def("take_note", &Planner::take_note)
      .def_property_readonly("counts", &Planner::counts);
}

}  // namespace evenspan::python
