// What `train --help` says, whoever starts the ranks.
#include "evenspan/train/config.h"

namespace evenspan::train {

std::string describe_training() {
  return R"(CONFIG is a TOML file with the sections below. Every key can be overridden: --optimizer.learning_rate 1e-3.
Lists are given as a,b on the command line. Relative paths start at the file's folder, or, when they come from the
command line, at the working folder. The least that a file must hold:

  [model]
  config = "config.json"      # of Hugging Face; weights = "FOLDER" starts from given weights
  [data]
  path = "text"               # text files, a JSONL file, or Megatron's .bin and .idx
  [run]
  folder = "run"              # metrics.jsonl, config.toml and checkpoints
  steps = 1000

Data:
  text      a folder: every file below it is a document, in UTF-8
  JSONL     a file: an object a line, whose field "text", a string, is a document; other fields are not read. Blank
            lines are passed over, and a line that is something else is an error with its number
  Megatron  indexed data, PREFIX.bin and PREFIX.idx, as tokens of uint8, int8, int16, uint16, int32 or int64
  Text and JSONL become the tokens of the tokenizer beside the model's weights or configuration, or of data.tokenizer,
  before the run: a document begins as the tokenizer lets a text begin and ends with its end-of-text token. A model
  that starts from initial values and has no tokenizer reads bytes, 0 to 255, and 256 ends a document.

Ctrl-C, SIGTERM or SIGHUP on any rank: the step (or the batch of an evaluation) at work is finished, all ranks keep the
step in a checkpoint, and the run says how to go on; a second Ctrl-C ends it at once. --run.resume latest then repeats
and skips no document, and makes up for an evaluation that was cut. torchrun waits 30 s for that, or
--shutdown-timeout seconds. Exit code: 0 done, 2 bad input, or what a file, the machine or another rank refuses, 3 a
bug of Evenspan, 130, 143 or 129 stopped by Ctrl-C, SIGTERM or SIGHUP.

Keys:
)" + describe_keys();
}

}  // namespace evenspan::train
