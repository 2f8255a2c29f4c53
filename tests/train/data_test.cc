#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <set>

#include "evenspan/nn/loss.h"
#include "evenspan/train/batches.h"
#include "evenspan/train/corpus.h"
#include "files/utf8.h"
#include "train/scratch.h"

namespace evenspan::train {
namespace {

using evenspan::testing::error_of;
using evenspan::testing::Scratch;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<int64_t> tokens_of(const Corpus& corpus, int64_t document) {
  std::vector<int64_t> tokens(static_cast<size_t>(corpus.length(document)));
  corpus.read(document, Span{0, corpus.length(document)}, tokens.data());
  return tokens;
}

TEST(TextFolder, IsSortedFilteredAndCounted) {
  const Scratch s;
  s.write("b.py", "b");
  s.write("a/z.py", "\xc3\xa9");
  s.write("a/skip/x.py", "x");
  s.write("empty.py", "");
  s.write("notes.txt", "n");
  const auto corpus = open_text_folder(s.path(), {.suffixes = {".py"}, .exclude = {"skip"}, .skip_invalid = false});
  ASSERT_EQ(corpus->num_documents(), 2);
  EXPECT_THAT(tokens_of(*corpus, 0), ElementsAre(0xc3, 0xa9, kEndOfDocument));
  EXPECT_THAT(tokens_of(*corpus, 1), ElementsAre('b', kEndOfDocument));
  EXPECT_EQ(corpus->dropped().empty, 1);
}

TEST(TextFolder, NamesTheFileAndTheByteThatIsNotUtf8) {
  const Scratch s;
  s.write("good.py", "good");
  s.write("latin.py", "caf\xe9 au lait");
  EXPECT_THAT(error_of([&] { open_text_folder(s.path(), {}); }), HasSubstr("latin.py is not at byte 3"));
  const auto corpus = open_text_folder(s.path(), {.suffixes = {}, .exclude = {}, .skip_invalid = true});
  EXPECT_EQ(corpus->num_documents(), 1);
  EXPECT_EQ(corpus->dropped().invalid, 1);
}

TEST(TextFolder, BadFoldersAreRefused) {
  const Scratch s;
  EXPECT_THAT(error_of([&] { open_text_folder(s.path("none"), {}); }), HasSubstr("must be a folder"));
  EXPECT_THAT(error_of([&] { open_text_folder(s.path(), {}); }), HasSubstr("must hold a text file"));
  s.write("a.txt", "abc");
  DataConfig file;
  file.path = s.path("a.txt");
  EXPECT_THAT(error_of([&] { open_corpus(file); }), HasSubstr("put a file of text into a folder and give that"));
  file.format = "text";
  EXPECT_THAT(error_of([&] { open_corpus(file); }), HasSubstr("a.txt is a file; put it into a folder, and give that"));
  const auto corpus = open_text_folder(s.path(), {});
  s.write("a.txt", "abcd");
  EXPECT_THAT(error_of([&] { tokens_of(*corpus, 0); }),
              HasSubstr("had 3 bytes when it was opened first and has 4 now"));
}

TEST(Utf8, FindsTheFirstBadByte) {
  const auto bad = [](const std::string& text) {
    return files::find_invalid_utf8(text.data(), static_cast<int64_t>(text.size()));
  };
  EXPECT_EQ(bad("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), -1);
  EXPECT_EQ(bad("a\x80"), 1);             // a continuation alone
  EXPECT_EQ(bad("\xc0\xaf"), 0);          // overlong
  EXPECT_EQ(bad("\xe0\x80\xaf"), 0);      // overlong
  EXPECT_EQ(bad("ab\xed\xa0\x80"), 2);    // a surrogate
  EXPECT_EQ(bad("\xf4\x90\x80\x80"), 0);  // above 10FFFF
  EXPECT_EQ(bad("ok\xe2\x82"), 2);        // cut
}

// A folder of JSONL shards is common; read as text, its braces and keys would be trained on.
TEST(TextFolder, DoesNotTakeJsonLinesForText) {
  const Scratch s;
  s.write("a.txt", "text");
  s.write("b.jsonl", "{\"text\": \"b\"}\n");
  EXPECT_THAT(error_of([&] { open_text_folder(s.path(), {}); }), HasSubstr("b.jsonl is JSONL"));
  EXPECT_EQ(
      open_text_folder(s.path(), {.suffixes = {}, .exclude = {"b.jsonl"}, .skip_invalid = false})->num_documents(), 1);
  EXPECT_EQ(open_text_folder(s.path(), {.suffixes = {".jsonl"}, .exclude = {}, .skip_invalid = false})->num_documents(),
            1);
}

TEST(Jsonl, ReadsTheFieldText) {
  const Scratch s;
  const std::string path =
      s.write("d.jsonl", "{\"text\": \"ab\"}\n\n{\"id\": 3, \"text\": \"\"}\n{\"text\": \"\\u00e9\"}");
  const auto corpus = open_jsonl(path);
  ASSERT_EQ(corpus->num_documents(), 2);
  EXPECT_EQ(corpus->dropped().empty, 1);
  EXPECT_THAT(tokens_of(*corpus, 0), ElementsAre('a', 'b', kEndOfDocument));
  EXPECT_THAT(tokens_of(*corpus, 1), ElementsAre(0xc3, 0xa9, kEndOfDocument));
  EXPECT_THAT(corpus->name(1), HasSubstr("d.jsonl:4"));
}

TEST(Jsonl, BadLinesAreNumbered) {
  const Scratch s;
  const auto refusal = [&](const std::string& text) { return error_of([&] { open_jsonl(s.write("d.jsonl", text)); }); };
  EXPECT_THAT(refusal("{\"text\": \"a\"}\n{\"text\": 3}\n"), HasSubstr("d.jsonl:2: text is \"3\"; it is a text"));
  EXPECT_THAT(refusal("{\"body\": \"a\"}\n"), HasSubstr("the field text is missing"));
  EXPECT_THAT(refusal("{\"text\": \"a\n"), HasSubstr("d.jsonl:1 is no JSON from line 1, column 12 on"));
  EXPECT_THAT(refusal("{\"text\": \"\xe9\"}\n"), HasSubstr("d.jsonl:1 is not UTF-8 at byte 10"));
  EXPECT_THAT(refusal("\n"), HasSubstr("must hold a document"));
  EXPECT_THAT(error_of([&] { open_jsonl(s.path("none.jsonl")); }), HasSubstr("cannot be opened"));
}

// A Megatron pair; fields can be spoilt before they are written.
struct Index {
  std::string magic{"MMIDIDX\0\0", 9};
  uint64_t version = 1;
  uint8_t type = 8;
  std::vector<int32_t> lengths;
  std::vector<int64_t> offsets, bounds;
  std::string tail;

  std::string bytes() const {
    std::string out = magic;
    const auto put = [&](const auto& value) { out.append(reinterpret_cast<const char*>(&value), sizeof value); };
    put(version);
    put(type);
    put(static_cast<uint64_t>(lengths.size()));
    put(static_cast<uint64_t>(bounds.size()));
    for (const auto& x : lengths) put(x);
    for (const auto& x : offsets) put(x);
    for (const auto& x : bounds) put(x);
    return out + tail;
  }
};

Index good_index() { return {.lengths = {3, 0, 2, 1}, .offsets = {0, 6, 6, 10}, .bounds = {0, 1, 2, 4}, .tail = ""}; }
const std::string kTokens("\x01\x00\x02\x00\x03\x00\x04\x01\x05\x00\x06\x00", 12);  // uint16 1 2 3 260 5 6

TEST(Megatron, ReadsUnalignedIndices) {
  const Scratch s;
  s.write("d.bin", kTokens);
  s.write("d.idx", good_index().bytes());
  for (const char* name : {"d", "d.bin", "d.idx"}) {
    const auto corpus = open_megatron(s.path(name));
    ASSERT_EQ(corpus->num_documents(), 2);  // the second is empty
    EXPECT_EQ(corpus->dropped().empty, 1);
    EXPECT_THAT(tokens_of(*corpus, 0), ElementsAre(1, 2, 3));
    EXPECT_THAT(tokens_of(*corpus, 1), ElementsAre(260, 5, 6));  // of two sequences
  }
}

TEST(Megatron, ReadsEveryTokenType) {
  const Scratch s;
  const std::pair<uint8_t, size_t> types[] = {{1, 1}, {2, 1}, {3, 2}, {4, 4}, {5, 8}, {8, 2}};
  for (const auto& [code, size] : types) {
    std::string bytes;
    for (char i = 1; i <= 3; ++i) bytes += i + std::string(size - 1, '\0');
    s.write("d.bin", bytes);
    s.write("d.idx", Index{.type = code, .lengths = {3}, .offsets = {0}, .bounds = {0, 1}, .tail = ""}.bytes());
    EXPECT_THAT(tokens_of(*open_megatron(s.path("d")), 0), ElementsAre(1, 2, 3)) << int{code};
  }
}

TEST(Megatron, BadFilesAreRefused) {
  const Scratch s;
  s.write("d.bin", kTokens);
  const auto refusal = [&](const std::string& bytes) {
    s.write("d.idx", bytes);
    return error_of([&] { open_megatron(s.path("d")); });
  };
  const auto spoilt = [&](const auto& spoil) {
    Index index = good_index();
    spoil(index);
    return refusal(index.bytes());
  };
  const std::string good = good_index().bytes();
  EXPECT_EQ(refusal(good), "");
  for (size_t n = 0; n < good.size(); ++n) EXPECT_THAT(refusal(good.substr(0, n)), HasSubstr("d.idx")) << n << " bytes";
  EXPECT_THAT(refusal(good.substr(0, 20)), HasSubstr("the header alone has 34"));
  EXPECT_THAT(refusal(good.substr(0, 60)), HasSubstr("truncated"));
  EXPECT_THAT(spoilt([](Index& i) { i.magic[0] = 'X'; }), HasSubstr("does not begin with MMIDIDX"));
  EXPECT_THAT(spoilt([](Index& i) { i.version = 2; }), HasSubstr("version must be 1, it is 2"));
  EXPECT_THAT(spoilt([](Index& i) { i.type = 7; }), HasSubstr("floating type"));
  EXPECT_THAT(spoilt([](Index& i) { i.type = 9; }), HasSubstr("must be 1 to 8, it is 9"));
  EXPECT_THAT(spoilt([](Index& i) { i.lengths[0] = -1; }), HasSubstr("sequence 0 has the length -1"));
  EXPECT_THAT(spoilt([](Index& i) { i.lengths[3] = 9; }),
              HasSubstr("d.bin is truncated: sequence 3 needs 18 bytes from byte 10 on, the file has 12"));
  EXPECT_THAT(spoilt([](Index& i) { i.offsets[3] = int64_t{1} << 62; }), HasSubstr("d.bin is truncated"));
  EXPECT_THAT(spoilt([](Index& i) { i.offsets[3] = 8; }), HasSubstr("back to back"));
  EXPECT_THAT(spoilt([](Index& i) { i.bounds[0] = 1; }), HasSubstr("first document must begin at sequence 0"));
  EXPECT_THAT(spoilt([](Index& i) { i.bounds[1] = 3; }), HasSubstr("document 1 has the sequences [3, 2)"));
  EXPECT_THAT(spoilt([](Index& i) { i.bounds[3] = 3; }), HasSubstr("end at sequence 3 of 4"));
  EXPECT_THAT(spoilt([](Index& i) { i.bounds.clear(); }), HasSubstr("no document bounds"));
  EXPECT_THAT(spoilt([](Index& i) { i.tail = "xxxx"; }), HasSubstr("4 bytes after its arrays"));
  EXPECT_THAT(error_of([&] { open_megatron(s.path("none")); }), HasSubstr("cannot be opened"));
}

// Of a call that reads a file which is open and has become shorter.
template <class Call>
void expect_shrunk(const std::string& path, size_t num_bytes, const Call& call) {
  for (const size_t left : {num_bytes - 1, num_bytes / 2, size_t{0}}) {
    std::filesystem::resize_file(path, left);
    EXPECT_THAT(error_of(call),
                HasSubstr(join_text(path, " had ", num_bytes, " bytes when it was opened first and has ", left,
                                    " now; files must not change while a run reads them")));
  }
}

TEST(Megatron, FilesThatShrinkAreNamed) {
  const Scratch s;
  s.write("d.idx", good_index().bytes());
  for (size_t n = 0; n < kTokens.size(); ++n) {  // before they are opened
    s.write("d.bin", kTokens.substr(0, n));
    EXPECT_THAT(error_of([&] { open_megatron(s.path("d")); }),
                ::testing::AllOf(HasSubstr(s.path("d.bin") + " is truncated: sequence "),
                                 HasSubstr(join_text("the file has ", n, "; copy it again"))));
  }
  s.write("d.bin", kTokens);
  const auto corpus = open_megatron(s.path("d"));
  for (const int64_t document : {0, 1})
    expect_shrunk(s.path("d.bin"), kTokens.size(), [&] { tokens_of(*corpus, document); });
}

TEST(Jsonl, FilesThatShrinkAreNamed) {
  const Scratch s;
  const std::string text = "{\"text\": \"ab\"}\n{\"text\": \"cde\"}\n";
  const std::string path = s.write("d.jsonl", text);
  const auto corpus = open_jsonl(path);
  for (const int64_t document : {0, 1}) expect_shrunk(path, text.size(), [&] { tokens_of(*corpus, document); });
}

// Documents of given lengths whose tokens are 0, 1, 2, ... over all of them.
class Counting : public Corpus {
 public:
  explicit Counting(std::vector<int64_t> lengths) : lengths_(std::move(lengths)) {}
  int64_t num_documents() const override { return static_cast<int64_t>(lengths_.size()); }
  int64_t length(int64_t d) const override { return lengths_[static_cast<size_t>(d)]; }
  std::string name(int64_t d) const override { return join_text("document ", d); }
  int64_t vocabulary() const override { return 0; }
  void read(int64_t d, Span span, int64_t* out) const override {
    const int64_t start = std::accumulate(lengths_.begin(), lengths_.begin() + d, int64_t{0});
    std::iota(out, out + span.size(), start + span.begin);
  }

 private:
  std::vector<int64_t> lengths_;
};

DataConfig data_config(int64_t max_document_tokens, int64_t batch_tokens) {
  DataConfig c;
  c.max_document_tokens = max_document_tokens;
  c.batch_tokens = batch_tokens;
  return c;
}

TEST(Batches, EveryPieceOnceAnEpochInSeededOrder) {
  const auto corpus = std::make_shared<Counting>(std::vector<int64_t>{5, 23, 1, 9, 10, 40, 2});
  const Batches batches(corpus, data_config(10, 25));
  EXPECT_EQ(batches.num_pieces(), 1 + 3 + 1 + 1 + 1 + 4 + 1);
  EXPECT_EQ(batches.num_tokens(), 90);
  Cursor cursor;
  std::vector<Excerpt> first, second;
  while (cursor.epoch < 2) {
    Cursor replay = cursor;
    int64_t tokens = 0;
    const Batch batch = batches.next(&cursor);
    for (const Excerpt& piece : batch) {
      tokens += piece.length();
      (static_cast<int64_t>(first.size()) < batches.num_pieces() ? first : second).push_back(piece);
    }
    EXPECT_LE(tokens, 25);
    EXPECT_EQ(Batches(corpus, data_config(10, 25)).next(&replay), batch);  // a cursor is all the state
    EXPECT_EQ(replay, cursor);
  }
  const auto distinct = [](const std::vector<Excerpt>& pieces) {
    std::set<std::pair<int64_t, int64_t>> out;
    for (const Excerpt& p : pieces) out.emplace(p.document, p.span.begin);
    return static_cast<int64_t>(out.size());
  };
  second.resize(static_cast<size_t>(batches.num_pieces()));
  EXPECT_EQ(distinct(first), batches.num_pieces());
  EXPECT_EQ(distinct(second), batches.num_pieces());
  EXPECT_NE(first, second);  // each epoch has an order of its own
}

TEST(Batches, SeedAndPackOrderDoWhatTheySay) {
  const auto corpus = std::make_shared<Counting>(std::vector<int64_t>(40, 3));
  DataConfig config = data_config(10, 60);
  const auto first_batch = [&] {
    Cursor cursor;
    return Batches(corpus, config).next(&cursor);
  };
  const Batch base = first_batch();
  EXPECT_EQ(first_batch(), base);
  config.pack_order = 1;
  const Batch repacked = first_batch();
  EXPECT_NE(repacked, base);
  EXPECT_THAT(repacked, ::testing::UnorderedElementsAreArray(base));
  config.seed = 1;
  EXPECT_THAT(first_batch(), ::testing::Not(::testing::UnorderedElementsAreArray(base)));
}

TEST(Batches, HeldOutDocumentsAreNeverTrainedOn) {
  const auto corpus = std::make_shared<Counting>(std::vector<int64_t>{30, 30, 30, 30, 30, 30, 30, 30, 30, 30});
  DataConfig config = data_config(10, 30);
  config.held_out_fraction = 0.3;
  const Batches batches(corpus, config);
  std::set<int64_t> held;
  for (const Batch& batch : batches.held_out(100)) {
    for (const Excerpt& piece : batch) held.insert(piece.document);
  }
  EXPECT_EQ(held.size(), 3u);
  EXPECT_EQ(batches.held_out(2).size(), 2u);
  for (Cursor cursor; cursor.epoch < 1;) {
    for (const Excerpt& piece : batches.next(&cursor)) EXPECT_FALSE(held.contains(piece.document));
  }
}

TEST(Batches, ImpossibleOptionsAreRefused) {
  const auto corpus = std::make_shared<Counting>(std::vector<int64_t>{5});
  EXPECT_THAT(error_of([&] { Batches(corpus, data_config(11, 10)); }),
              HasSubstr("max_document_tokens must be at most batch_tokens, they are 11 and 10"));
  DataConfig config = data_config(10, 10);
  config.held_out_fraction = 0.5;
  EXPECT_THAT(error_of([&] { Batches(corpus, config); }), HasSubstr("leaves none to train on"));
}

std::vector<int64_t> values(const at::Tensor& t) {
  return {t.const_data_ptr<int64_t>(), t.const_data_ptr<int64_t>() + t.numel()};
}

TEST(LoadTokens, LabelsAreShiftedInsideTheirDocumentWhereverItIsCut) {
  const Counting corpus({4, 6});
  const Batch batch = {{1, Span{0, 4}}, {0, Span{0, 4}}, {1, Span{4, 6}}};  // a long document goes on as a new one
  const auto placed = [](int64_t d, int64_t begin, int64_t end) {
    return plan::PlacedSpan{DocumentId(d), Span{begin, end}};
  };
  const LocalTokens a = load_tokens(corpus, batch, {placed(0, 0, 2), placed(1, 2, 4), placed(2, 0, 2)}, 10);
  EXPECT_THAT(values(a.ids), ElementsAre(4, 5, 2, 3, 8, 9));
  EXPECT_THAT(values(a.positions), ElementsAre(0, 1, 2, 3, 0, 1));
  EXPECT_THAT(values(a.labels), ElementsAre(5, 6, 3, nn::kNoLabel, 9, nn::kNoLabel));  // 6 is another rank's token
  const LocalTokens b = load_tokens(corpus, batch, {placed(0, 2, 4), placed(1, 0, 2)}, 10);
  EXPECT_THAT(values(b.labels), ElementsAre(7, nn::kNoLabel, 1, 2));
  EXPECT_EQ(num_labels(batch), 3 + 3 + 1);
  EXPECT_EQ(load_tokens(corpus, batch, {}, 10).ids.numel(), 0);
}

TEST(LoadTokens, TokensOutsideTheVocabularyAreRefused) {
  const Counting corpus({4, 6});
  const Batch batch = {{1, Span{0, 6}}};
  EXPECT_THAT(error_of([&] {
                load_tokens(corpus, batch, {{DocumentId(0), Span{0, 6}}}, 9);
              }),
              HasSubstr("must be in [0, 9), the model's vocab_size; token 5 of document 1 is 9"));
}

}  // namespace
}  // namespace evenspan::train
