#ifdef EVENSPAN_WITH_TRAIN
#include <malloc.h>
#include <pybind11/stl.h>

#include <cstdio>

#include "bindings/bindings.h"
#include "evenspan/train/config.h"
#include "evenspan/train/stop_signals.h"
#include "evenspan/train/tokenization.h"
#include "evenspan/train/trainer.h"

namespace evenspan::python {
namespace {

train::Summary run_trainer(const std::string& path, const train::Overrides& overrides,
                           const comm::Communicator& communicator) {
  // As in evenspan-train: activations are freed and allocated again all the time, so keep their pages.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const train::Config config = train::load_config(path, overrides);
  const train::StopSignals signals(/*speaks=*/communicator.rank() == 0);
  return train::train(config, communicator, signals.stop());
}

// The words for `python -m evenspan` that make the tokens of the run; none where it needs no more.
std::vector<std::string> tokenization_words(const std::string& path, const train::Overrides& overrides, int32_t ranks) {
  const train::Config config = train::load_config(path, overrides);
  train::check(config, ranks);
  const std::optional<train::Tokenization> tokenization = train::tokenization(config);
  return tokenization ? tokenization->words : std::vector<std::string>();
}

}  // namespace

void bind_train(py::module_& m) {
  py::class_<train::Summary>(m, "Summary")
      .def_readonly("steps", &train::Summary::steps)
      .def_readonly("first_loss", &train::Summary::first_loss)
      .def_readonly("last_loss", &train::Summary::last_loss)
      .def_readonly("held_out_loss", &train::Summary::held_out_loss)
      .def_readonly("tokens", &train::Summary::tokens)
      .def_readonly("seconds", &train::Summary::seconds)
      .def_readonly("stopped_by", &train::Summary::stopped_by)
      .def_readonly("checkpoint", &train::Summary::checkpoint);
  m.def("train", run_trainer, Unlocked(), py::arg("config"), py::arg("overrides"), py::arg("communicator"));
  m.def("tokenization_words", tokenization_words, py::arg("config"), py::arg("overrides"), py::arg("ranks"));
  m.def("describe_training", &train::describe_training);
}

}  // namespace evenspan::python
#endif
