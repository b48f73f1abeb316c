// The CPU kernels around the convolutions: GB/s (each operand read once, each result written once, as the meta backend
// counts) and % of the memory bandwidth measured in the same run; what fits the caches goes beyond 100 %.
//   bench_kernels --benchmark_filter=batch_norm
#include <benchmark/benchmark.h>

#include <functional>
#include <string>
#include <vector>

#include "peak.h"

using namespace saccade;
using namespace saccade::kernels;
using bench::Buffer;

namespace {

struct Shape {
  std::string name;
  Segments segments;
  int64_t channels;
  int64_t elements() const { return total_rows(segments) * channels; }
};

/// Maps of RegNetY-400MF on 2x96 + 4x48 crops of 32 images, and of the demonstration's network on 2x28 + 2x16 of 256.
std::vector<Shape> shapes() {
  const auto crops = [](int64_t images, int64_t large, int64_t small, int64_t many) -> Segments {
    return {{2 * images, large, large}, {many * images, small, small}};
  };
  return {{"400mf/stem48x32", crops(32, 48, 24, 4), 32}, {"400mf/24x48", crops(32, 24, 12, 4), 48},
          {"400mf/12x104", crops(32, 12, 6, 4), 104},    {"400mf/6x208", crops(32, 6, 3, 4), 208},
          {"400mf/3x440", crops(32, 3, 2, 4), 440},      {"demo/28x16", crops(256, 28, 16, 2), 16},
          {"demo/14x32", crops(256, 14, 8, 2), 32},      {"demo/7x80", crops(256, 7, 4, 2), 80},
          {"demo/4x160", crops(256, 4, 2, 2), 160}};
}

/// Times the call on the CPU; bytes by a rehearsal of the same call.
void measure(benchmark::State& state, const std::function<void(Backend&)>& call) {
  const double before = meta_cost().bytes_moved;
  call(backend(Device::meta));
  const double bytes = meta_cost().bytes_moved - before;
  Backend& cpu = backend(Device::cpu);
  call(cpu);
  for (auto _ : state) call(cpu);
  const double moved = bytes * static_cast<double>(state.iterations());
  state.counters["GB/s"] = benchmark::Counter(moved * 1e-9, benchmark::Counter::kIsRate);
  state.counters["%peak"] = benchmark::Counter(100 * moved / bench::peak_bytes(), benchmark::Counter::kIsRate);
}

template <class Body>
void add(const std::string& name, Body body) {
  benchmark::RegisterBenchmark(name.c_str(), body)->UseRealTime()->Unit(benchmark::kMicrosecond);
}

void register_batch_norm(const Shape& s, DType dtype) {
  const BatchNorm spec{s.channels, 1e-5f, 0.1f, true, dtype};
  const std::string tail = "/" + s.name + "/" + std::string(name_of(dtype));
  for (const bool backward : {false, true}) {
    for (const bool residual : {false, true}) {
      add(std::string("batch_norm_") + (backward ? "backward" : "forward") + (residual ? "_residual" : "") + tail,
          [=](benchmark::State& state) {
            const size_t bytes = static_cast<size_t>(s.elements()) * size_of(dtype);
            const Buffer x(bytes), y(bytes), dy(bytes), r(bytes), statistics(static_cast<size_t>(s.channels) * 40);
            const Buffer workspace(backend(Device::cpu).batch_norm_workspace(spec, s.segments));
            float* f = statistics.as<float>();
            const auto at = [&](int i) { return f + i * s.channels; };
            measure(state, [&](Backend& b) {
              if (!backward) {
                b.batch_norm_forward(spec, s.segments, x.as<void>(), residual ? r.as<void>() : nullptr, at(0), at(1),
                                     at(2), at(4), at(6), at(7), y.as<void>(), workspace.as<void>());
              } else {
                b.batch_norm_backward(spec, s.segments, x.as<void>(), residual ? y.as<void>() : nullptr, dy.as<void>(),
                                      at(0), at(1), at(2), at(4), dy.as<void>(), residual ? r.as<void>() : nullptr,
                                      at(8), at(9), workspace.as<void>());
              }
            });
          });
    }
  }
}

void register_maps(const Shape& s, DType dtype) {
  const std::string tail = "/" + s.name + "/" + std::string(name_of(dtype));
  const auto with_maps = [&](const char* name, auto call) {
    add(name + tail, [=](benchmark::State& state) {
      const size_t bytes = static_cast<size_t>(s.elements()) * size_of(dtype);
      const Buffer x(bytes), y(bytes), dy(bytes);
      const size_t pooled_bytes = static_cast<size_t>(total_images(s.segments) * s.channels) * 4;
      const Buffer pooled(pooled_bytes), scale(pooled_bytes);
      measure(state, [&](Backend& b) {
        call(b, x.as<void>(), y.as<void>(), dy.as<void>(), pooled.as<void>(), scale.as<void>());
      });
    });
  };
  with_maps("global_avg_pool_forward", [=](Backend& b, void* x, void*, void*, void* pooled, void*) {
    b.global_avg_pool_forward(s.segments, s.channels, dtype, x, pooled);
  });
  with_maps("global_avg_pool_backward", [=](Backend& b, void* x, void*, void*, void* pooled, void*) {
    b.global_avg_pool_backward(s.segments, s.channels, dtype, pooled, x);
  });
  with_maps("channel_scale_forward", [=](Backend& b, void* x, void* y, void*, void*, void* scale) {
    b.channel_scale_forward(s.segments, s.channels, dtype, x, scale, y);
  });
  with_maps("channel_scale_backward_scale", [=](Backend& b, void* x, void*, void* dy, void* pooled, void*) {
    b.channel_scale_backward_scale(s.segments, s.channels, dtype, x, dy, pooled);
  });
  with_maps("channel_scale_backward_input", [=](Backend& b, void*, void*, void* dy, void* pooled, void* scale) {
    b.channel_scale_backward_input(s.segments, s.channels, dtype, dy, scale, pooled, dy);
  });
  with_maps("add", [=](Backend& b, void* x, void* y, void* dy, void*, void*) { b.add(dtype, s.elements(), x, y, dy); });
  with_maps("relu_forward",
            [=](Backend& b, void* x, void* y, void*, void*, void*) { b.relu_forward(dtype, s.elements(), x, y); });
}

void register_max_pool() {
  const Conv2d window{64, 64, 3, 2, 1, 64, DType::f32};
  const Segments in = {{16, 48, 48}, {32, 24, 24}};
  for (const bool backward : {false, true}) {
    add(backward ? "max_pool_backward/resnet" : "max_pool_forward/resnet", [=](benchmark::State& state) {
      const Buffer x(total_rows(in) * 64 * 4), y(total_rows(in) * 64), argmax(total_rows(in) * 16);
      measure(state, [&](Backend& b) {
        backward ? b.max_pool_backward(window, in, y.as<void>(), argmax.as<uint8_t>(), x.as<void>())
                 : b.max_pool_forward(window, in, x.as<void>(), y.as<void>(), argmax.as<uint8_t>());
      });
    });
  }
}

void register_assignment() {
  struct Problem {
    const char* name;
    int64_t batch, queue, crops, prototypes;
  };
  for (const Problem& p : {Problem{"400mf/k300", 32, 0, 6, 300}, Problem{"demo/k256", 256, 0, 4, 256},
                           Problem{"imagenet/k3000+queue", 256, 3840, 8, 3000}}) {
    const Sinkhorn sinkhorn{p.batch + p.queue, p.prototypes, 0.05f, 3};
    add(std::string("sinkhorn_potentials/") + p.name, [=](benchmark::State& state) {
      const Buffer scores(sinkhorn.rows * p.prototypes * 4), potentials(p.prototypes * 4);
      const Buffer workspace(backend(Device::cpu).sinkhorn_workspace(sinkhorn));
      measure(state, [&](Backend& b) {
        b.sinkhorn_potentials(sinkhorn, scores.as<float>(), potentials.as<float>(), workspace.as<void>());
      });
    });
    add(std::string("sinkhorn_assign/") + p.name, [=](benchmark::State& state) {
      const Buffer scores(p.batch * p.prototypes * 4), potentials(p.prototypes * 4), q(p.batch * p.prototypes * 4);
      measure(state, [&](Backend& b) {
        b.sinkhorn_assign({p.batch, p.prototypes}, scores.as<float>(), potentials.as<float>(), q.as<float>());
      });
    });
    add(std::string("swapped_prediction/") + p.name, [=](benchmark::State& state) {
      const size_t bytes = static_cast<size_t>(p.batch * p.crops * p.prototypes) * 4;
      const Buffer scores(bytes), q(bytes), gradient(bytes), loss(4);
      measure(state, [&](Backend& b) {
        b.swapped_prediction({p.batch, p.crops, 2, p.prototypes}, scores.as<float>(), q.as<float>(), loss.as<float>(),
                             gradient.as<float>());
      });
    });
  }
  add("l2_normalize_forward/1024x128", [=](benchmark::State& state) {
    const Buffer x(1024 * 128 * 4), y(1024 * 128 * 4), norm(1024 * 4);
    measure(state, [&](Backend& b) {
      b.l2_normalize_forward(DType::f32, 1024, 128, 1e-12f, x.as<void>(), y.as<void>(), norm.as<float>());
    });
  });
  add("cross_entropy/256x1000", [=](benchmark::State& state) {
    const Buffer x(256 * 1000 * 4), dx(256 * 1000 * 4), loss(4);
    const std::vector<int32_t> labels(256, 7);
    measure(state, [&](Backend& b) {
      b.cross_entropy(256, 1000, x.as<float>(), labels.data(), loss.as<float>(), dx.as<float>());
    });
  });
}

/// Tensors as a RegNetY has them: many small ones, a few large, `parameters` in all.
void register_optimizers(const char* name, int64_t parameters) {
  for (const char* kind : {"larc_sgd", "adamw"}) {
    add(std::string(kind) + "/" + name, [=](benchmark::State& state) {
      const Buffer p(parameters * 4), g(parameters * 4), m(parameters * 4), v(parameters * 4);
      std::vector<ParameterSlot> slots;
      for (int64_t begin = 0; begin < parameters;) {
        const int64_t wanted = slots.size() % 3 == 0 ? parameters / 64 : 256, n = std::min(wanted, parameters - begin);
        slots.push_back(
            {p.as<float>() + begin, g.as<float>() + begin, m.as<float>() + begin, v.as<float>() + begin, n});
        begin += n;
      }
      for (int64_t i = 0; i < parameters; ++i) v.as<float>()[i] = 1.f;
      measure(state, [&](Backend& b) {
        kind[0] == 'l' ? b.sgd({.lr = 1e-6f, .weight_decay = 1e-6f, .trust = 1e-3f}, slots)
                       : b.adamw({.lr = 1e-6f}, slots);
      });
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Shape& s : shapes()) {
      register_batch_norm(s, dtype);
      register_maps(s, dtype);
    }
  }
  register_max_pool();
  register_assignment();
  register_optimizers("400mf", 3900000);
  register_optimizers("demo", 330000);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("isa", std::string(name_of(cpu_isa())));
  benchmark::AddCustomContext("threads", std::to_string(cpu_threads()));
  benchmark::AddCustomContext("peak GFLOP/s", std::to_string(bench::peak_flops() * 1e-9));
  benchmark::AddCustomContext("peak GB/s", std::to_string(bench::peak_bytes() * 1e-9));
  benchmark::RunSpecifiedBenchmarks();
}
