"""The command line: `python -m evenspan COMMAND`; commands that need no torch are those of the program `evenspan`."""

from __future__ import annotations

import difflib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evenspan import _evenspan

USAGE = """python -m evenspan train CONFIG [--KEY VALUE ...]
    Trains a model, a process a rank: torchrun --nproc-per-node N -m evenspan train CONFIG. One rank without torchrun.
    CONFIG is a TOML file, every key of which can be overridden; train --help lists the keys.
python -m evenspan calibrate --out FILE [OPTIONS]
    Measures this machine, a process a rank: torchrun --nproc-per-node N -m evenspan calibrate --out FILE. Writes a
    profile for evenspan simulate; calibrate --help lists the options.
python -m evenspan tokenize IN --tokenizer FOLDER --out PREFIX [--end-of-document TOKEN]
    Writes PREFIX.bin and PREFIX.idx (Megatron indexed data) for data.path of a training run.
    IN                  a text file, a .jsonl file (key "text"), or a folder of such files; a text file is a document
    --tokenizer         a local folder with a Hugging Face tokenizer
    --end-of-document   the token after every document; default the tokenizer's end-of-text token; none: no token.
                        A document begins as the tokenizer lets a text begin: with <s>, or with nothing
    --format            jsonl for a JSONL file of another name; default auto
    --suffixes          of a folder only files with these endings: .py,.md
    --exclude           names of files and folders to leave out of a folder: tests,LICENSE
    --skip-invalid      true: leave text files out that are not UTF-8, instead of refusing them; default false
    --vocabulary        how many different tokens the model knows, where that is less than the tokenizer has
    --reuse             true: do nothing where PREFIX was made of the same files by the same tokenizer; default false
python -m evenspan plan|verify|simulate|explain|batch|strategies|completion [OPTIONS]
    The commands of the program evenspan; plan --help and so on describe them.
python -m evenspan version

Exit code: 0 done, 2 bad input, or what a file, the machine or another rank refuses, 3 a bug of Evenspan, and 128 and
the number of the signal, 130 or 143, of a run that was interrupted.
"""
TOKENIZING = timedelta(days=7)  # that other ranks wait for the first one at most
BAD_INPUT, BUG = 2, 3  # exit codes, those of the program evenspan


def _parse(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]], bool]:
    """Take positional words, (name, value) options and whether help is asked for apart, as evenspan-train does."""
    from evenspan import InvalidArgumentError

    words: list[str] = []
    options: list[tuple[str, str]] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--help", "-h"):
            return [], [], True
        if not argument.startswith("--"):
            words.append(argument)
        elif "=" in argument:
            name, value = argument[2:].split("=", 1)
            options.append((name, value))
        else:
            given = next(rest, None)
            if given is None:
                raise InvalidArgumentError(f"[command line] {argument} needs a value after it")
            options.append((argument[2:], given))
    return words, options, False


def _init_process_group() -> bool:
    """Make the default process group when torchrun or the like started this process; return whether it did."""
    import torch
    import torch.distributed as dist

    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        return False
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    return True


def _make_tokens(config: str, options: Sequence[tuple[str, str]], communicator: _evenspan.Communicator) -> None:
    """Make the tokens of a run on text, on rank 0 while the others wait as long as it takes."""
    import torch.distributed as dist

    from evenspan import Error, _evenspan

    key = "evenspan/train/tokens"
    store = dist.distributed_c10d._get_default_store() if communicator.size > 1 else None
    if communicator.rank == 0:
        try:
            words = _evenspan.tokenization_words(config, options, communicator.size)
            if words:
                _tokenize(words[1:])
        except BaseException as error:
            if store is not None:
                store.set(key, str(error) or type(error).__name__)
            raise
        if store is not None:
            store.set(key, "")
    elif store is not None:
        store.wait([key], TOKENIZING)
        failure = store.get(key).decode()
        if failure:
            raise Error(f"[train] rank 0 could not prepare the data: {failure}")


def _train(arguments: Sequence[str]) -> int:
    import torch.distributed as dist

    from evenspan import Error, InvalidArgumentError, _evenspan
    from evenspan._groups import communicator_of, tell_all

    if not hasattr(_evenspan, "train"):
        raise Error("[train] this build is without the trainer; build evenspan with it (EVENSPAN_LAYERS)")
    words, options, wants_help = _parse(arguments)
    if wants_help:
        print(USAGE + "\n" + _evenspan.describe_training(), end="")
        return 0
    if len(words) != 1:
        raise InvalidArgumentError(f"[command line] one CONFIG file is needed, {len(words)} were given; see --help")
    for name, _ in options:
        if name == "ranks":
            raise InvalidArgumentError("[command line] the ranks are processes here: torchrun --nproc-per-node N")
    distributed = _init_process_group()
    communicator = communicator_of(None)
    try:
        _make_tokens(words[0], options, communicator)
        summary = _evenspan.train(words[0], options, communicator)
    except BaseException as error:
        tell_all(communicator, "train", error)
        raise
    if distributed:
        dist.destroy_process_group()
    return 128 + summary.stopped_by if summary.stopped_by else 0


def _calibrate(arguments: Sequence[str]) -> int:
    import torch.distributed as dist

    from evenspan import Error, InvalidArgumentError, _evenspan
    from evenspan._groups import communicator_of, tell_all

    if not hasattr(_evenspan, "CalibrateCommand"):
        raise Error("[calibrate] this build is without calibration; build evenspan with nlohmann-json")
    command = _evenspan.CalibrateCommand(list(arguments))
    if command.help:
        print(USAGE + "\nOptions:\n" + command.describe_options(), end="")
        return 0
    if command.ranks is not None:
        raise InvalidArgumentError("[options] the ranks are processes here: torchrun --nproc-per-node N")
    distributed = _init_process_group()
    if command.ranks_per_node == 0 and distributed:
        command.ranks_per_node = int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
    communicator = communicator_of(None)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # native code, to which Python's own handler would come too late
    try:
        said = command.run(communicator)
    except BaseException as error:
        tell_all(communicator, "calibrate", error)
        raise
    print(said, end="", file=sys.stderr)
    if distributed:
        dist.destroy_process_group()
    return 0


def _tokenize(arguments: Sequence[str]) -> int:
    from evenspan import InvalidArgumentError
    from evenspan._tokenize import Source, tokenize

    words, options, wants_help = _parse(arguments)
    if wants_help:
        print(USAGE, end="")
        return 0
    given = dict(options)
    known = {
        "tokenizer",
        "out",
        "end-of-document",
        "format",
        "suffixes",
        "exclude",
        "skip-invalid",
        "vocabulary",
        "reuse",
    }
    unknown = sorted(set(given).difference(known))
    if unknown:
        raise InvalidArgumentError(f"[command line] there is no option --{unknown[0]}; see --help")
    if len(words) != 1 or "tokenizer" not in given or "out" not in given:
        raise InvalidArgumentError("[command line] IN, --tokenizer FOLDER and --out PREFIX are needed; see --help")

    def choice(name: str, choices: tuple[str, ...]) -> str:
        value = given.get(name, choices[0])
        if value not in choices:
            raise InvalidArgumentError(f"[command line] --{name} must be one of {', '.join(choices)}, it is {value!r}")
        return value

    def names(name: str) -> tuple[str, ...]:
        return tuple(part for part in given.get(name, "").split(",") if part)

    vocabulary = given.get("vocabulary")
    if vocabulary is not None and not vocabulary.isdecimal():
        raise InvalidArgumentError(f"[command line] --vocabulary must be a whole number, it is {vocabulary!r}")
    source = Source(
        Path(words[0]),
        jsonl=choice("format", ("auto", "jsonl", "text")) == "jsonl",
        suffixes=names("suffixes"),
        exclude=names("exclude"),
        skip_invalid=choice("skip-invalid", ("false", "true")) == "true",
    )
    said = tokenize(
        source,
        Path(given["tokenizer"]),
        Path(given["out"]),
        given.get("end-of-document"),
        int(vocabulary) if vocabulary else None,
        reuse=choice("reuse", ("false", "true")) == "true",
    )
    print(said)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0 if arguments else BAD_INPUT
    from evenspan import Error, __version__, _native

    if arguments[0] in ("version", "--version", "-V"):
        print(f"evenspan {__version__}")
        return 0
    commands = {"train": _train, "calibrate": _calibrate, "tokenize": _tokenize}
    if arguments[0] not in commands and arguments[0] not in _native.COMMANDS:
        names = [*commands, *_native.COMMANDS, "version"]
        near = difflib.get_close_matches(arguments[0], names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"evenspan: there is no command {arguments[0]!r}; there are {', '.join(names)}{hint}", file=sys.stderr)
        return BAD_INPUT
    try:
        if arguments[0] in _native.COMMANDS:
            _native.start(arguments)
        return commands[arguments[0]](arguments[1:])
    except Error as error:
        print(f"evenspan {arguments[0]}: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"evenspan {arguments[0]}: interrupted; nothing was kept", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception:
        traceback.print_exc()
        print("evenspan: this is a bug in Evenspan, please report it with the command that you ran", file=sys.stderr)
        return BUG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
