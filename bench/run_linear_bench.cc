// Forward and backward of linear attention's chunked kernel on one segment, beside the bare matrix products that they
// consist of, by at::bmm: the same sizes, in batches of the same length, on operands that stay in the cache. They take
// turns; `of_products` is the products' shortest time over the kernel's. Target: at least 0.7; above 1 is possible,
// since the kernel does not multiply what is known to be 0. EVENSPAN_BENCH_THREADS sets the threads of both (default
// 1).
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "evenspan/run/linear_kernel.h"
#include "run/linear/chunk_block.h"

namespace evenspan::run {
namespace {

struct Shape {
  int64_t tokens, heads, dim;
};

struct Variant {
  const char* name;
  int64_t gate_dims;  // 0: none; 1: [heads]; 2: [rows, heads]; 3: [rows, heads, key_dim]
  bool delta;
};

// `times` products of [batch, rows, inner] and [batch, inner, columns].
struct Product {
  int64_t rows, inner, columns;
  int64_t batch, times;
};

class Products {
 public:
  explicit Products(const std::vector<Product>& products) {
    for (const Product& p : products) {
      calls_.push_back({at::randn({p.batch, p.rows, p.inner}), at::randn({p.batch, p.inner, p.columns}),
                        at::empty({p.batch, p.rows, p.columns}), p.times});
    }
  }
  // Block by block, as the kernel does.
  void run(int64_t blocks) {
    for (int64_t b = 0; b < blocks; ++b) {
      for (Call& call : calls_) {
        for (int64_t i = 0; i < call.times; ++i) at::bmm_out(call.out, call.left, call.right);
      }
    }
  }

 private:
  struct Call {
    at::Tensor left, right, out;
    int64_t times;
  };
  std::vector<Call> calls_;
};

// Of a block of one segment.
struct Sizes {
  int64_t chunk, chunks, heads, dim;
  bool delta;
  Product whole(int64_t rows, int64_t inner, int64_t columns, int64_t times = 1) const {
    return {rows, inner, columns, chunks * heads, times};
  }
  Product each_wave(int64_t rows, int64_t inner, int64_t columns) const {
    return {rows, inner, columns, heads, chunks};
  }
};

// The states at the chunks' begins.
std::vector<Product> state_products(const Sizes& s) {
  if (!s.delta) return {s.whole(s.dim, s.chunk, s.dim)};
  return {s.whole(s.chunk, s.dim, s.chunk), s.each_wave(s.chunk, s.dim, s.dim), s.each_wave(s.chunk, s.chunk, s.dim),
          s.each_wave(s.dim, s.chunk, s.dim)};
}

std::vector<Product> forward_products(const Sizes& s) {
  std::vector<Product> all = state_products(s);
  all.push_back(s.whole(s.chunk, s.dim, s.chunk));  // pairs
  all.push_back(s.whole(s.chunk, s.chunk, s.dim));  // output
  all.push_back(s.whole(s.chunk, s.dim, s.dim));
  return all;
}

// With the states computed once.
std::vector<Product> backward_products(const Sizes& s) {
  std::vector<Product> all = state_products(s);
  const int64_t readers = s.delta ? 2 : 1;
  all.push_back(s.whole(s.chunk, s.dim, s.chunk));           // pairs
  all.push_back(s.whole(s.chunk, s.dim, s.chunk, readers));  // their gradients
  all.push_back(s.whole(s.dim, s.chunk, s.dim));             // gradients of states
  all.push_back(s.whole(s.chunk, s.chunk, s.dim));           // of what is written
  if (s.delta) {
    all.push_back(s.each_wave(s.chunk, s.dim, s.dim));
    all.push_back(s.each_wave(s.chunk, s.chunk, s.dim));
    all.push_back(s.each_wave(s.dim, s.chunk, s.dim));
  } else {
    all.push_back(s.whole(s.chunk, s.dim, s.dim));
  }
  all.push_back(s.whole(s.chunk, s.chunk, s.dim, 2 * readers));  // of readers and keys, by way of the pairs
  all.push_back(s.whole(s.chunk, s.dim, s.dim, readers + 1));    // by way of the states
  return all;
}

double seconds(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double fastest(const std::vector<double>& times) { return *std::min_element(times.begin(), times.end()); }

enum class Pass { forward, backward };

void linear_pass(benchmark::State& state, const Variant& variant, const Shape& shape, Pass pass) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  const char* threads = std::getenv("EVENSPAN_BENCH_THREADS");
  at::set_num_threads(threads != nullptr ? std::max(1, std::atoi(threads)) : 1);
  const auto random = [&] { return at::randn({shape.tokens, shape.heads, shape.dim}); };
  LinearOperands x{random(), random(), random(), {}, {}, 0.125};
  x.key.div_(x.key.norm(2, -1, true));
  if (variant.gate_dims == 1) x.gate = at::full({shape.heads}, -0.03);
  if (variant.gate_dims == 2) x.gate = at::rand({shape.tokens, shape.heads}).mul_(-0.1);
  if (variant.gate_dims == 3) x.gate = at::rand({shape.tokens, shape.heads, shape.dim}).mul_(-0.1);
  if (variant.delta) x.beta = at::rand({shape.tokens, shape.heads});
  const auto kernel = make_chunked_kernel();
  const std::vector<RowRange> segments{{0, shape.tokens}};
  const at::Tensor output = at::empty_like(x.value), grad_output = random();
  const auto like = [](const at::Tensor& t) { return t.defined() ? at::empty_like(t) : t; };
  const LinearGradients gradients{like(x.query), like(x.key), like(x.value), like(x.gate), like(x.beta)};
  const auto run_kernel = [&] {
    if (pass == Pass::forward) {
      kernel->forward(x, output)->intra(segments, {0});
    } else {
      const auto backward = kernel->backward(x, grad_output, gradients);
      backward->intra(segments, {at::Tensor()}, {0});
      backward->finish();
    }
  };
  const chunked::BlockWork work(x, chunked::chunk_tokens_for(x, 64), shape.dim);
  const auto blocks = work.blocks(segments);
  const Sizes sizes{work.chunk_tokens(), blocks[0].num_chunks(), shape.heads, shape.dim, variant.delta};
  Products products(pass == Pass::forward ? forward_products(sizes) : backward_products(sizes));
  const auto run_products = [&] { products.run(static_cast<int64_t>(blocks.size())); };
  run_kernel();
  run_products();
  std::vector<double> of_kernel, of_products;
  for (auto _ : state) {
    of_products.push_back(seconds(run_products));
    of_kernel.push_back(seconds(run_kernel));
    state.SetIterationTime(of_kernel.back());
  }
  state.counters["products_ms"] = fastest(of_products) * 1e3;
  state.counters["kernel_ms"] = fastest(of_kernel) * 1e3;
  state.counters["of_products"] = fastest(of_products) / fastest(of_kernel);
}

void register_linear() {
  for (const Variant& variant : {Variant{"plain", 0, false}, Variant{"fixed", 1, false}, Variant{"scalar", 2, false},
                                 Variant{"diagonal", 3, false}, Variant{"delta", 0, true},
                                 Variant{"scalar_delta", 2, true}, Variant{"diagonal_delta", 3, true}}) {
    for (const Shape& shape : {Shape{8192, 8, 64}, Shape{8192, 8, 128}, Shape{1 << 20, 1, 64}}) {
      if (shape.tokens > 8192 && variant.gate_dims != 2) continue;  // its time should be in proportion
      for (const Pass pass : {Pass::forward, Pass::backward}) {
        const std::string title = std::string(pass == Pass::forward ? "linear_forward/" : "linear_backward/") +
                                  variant.name + "/" + std::to_string(shape.dim) + "/" + std::to_string(shape.tokens);
        benchmark::RegisterBenchmark(title.c_str(), linear_pass, variant, shape, pass)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond)
            ->MinTime(1.0);
      }
    }
  }
}
const bool kRegistered = (register_linear(), true);

}  // namespace
}  // namespace evenspan::run
