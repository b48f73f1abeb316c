// The kernels around the convolutions: GB/s and % of the memory bandwidth measured in the same run; what fits the
// caches goes beyond 100 %.
//   bench_kernels --benchmark_filter=batch_norm
//   bench_kernels --device cuda
// On the CPU bytes are as the meta backend counts: each operand read once, each result written once. On the GPU they
// are what docs/cuda.md calls the least a call can move, which counts twice what must be read twice, and 100 % is a
// copy.
#include <benchmark/benchmark.h>
#include <saccade/core/compute.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/error.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "peak.h"

using namespace saccade;
using namespace saccade::kernels;
using bench::Buffer;

namespace {

Device device = Device::cpu;  ///< --device

/// Memory of the device that is measured, with arbitrary values.
class Operand {
 public:
  explicit Operand(size_t bytes) {
    if (device == Device::cpu) {
      data_ = host_.emplace(bytes).as<void>();
      return;
    }
    static const Buffer pattern(4 << 20);
    data_ = memory_.emplace(device, bytes).data();
    size_t filled = std::min<size_t>(bytes, 4 << 20);
    backend(device).from_host(filled, pattern.as<void>(), data_);
    for (; filled < bytes; filled = std::min(bytes, 2 * filled)) {
      const auto more = static_cast<int64_t>(std::min(filled, bytes - filled));
      backend(device).run(Copy{more, data_, static_cast<uint8_t*>(data_) + filled});
    }
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  std::optional<Buffer> host_;
  std::optional<Workspace> memory_;
  void* data_;
};

/// Of one of `calls` calls, one right after the other, so that the GPU need not wait for the host to ask.
double seconds_of(Backend& b, int calls, const std::function<void(Backend&)>& call) {
  b.synchronize();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) call(b);
  b.synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / calls;
}

/// Bytes a second between the GPU and its memory: of a copy, read and written, far larger than the L2 cache.
double copy_bytes() {
  static const double measured = [] {
    constexpr size_t bytes = size_t{512} << 20;
    const Operand x(bytes), y(bytes);
    double best = 0;
    for (int i = 0; i < 10; ++i)
      best = std::max(best, 2. * bytes / seconds_of(backend(device), 5, [&](Backend& b) {
                              b.run(Copy{bytes, x.as<void>(), y.as<void>()});
                            }));
    return best;
  }();
  return measured;
}

struct Images {
  std::string name;
  Segments segments;
  int64_t channels;
  int64_t elements() const { return total_rows(segments) * channels; }
};

/// Maps of RegNetY-400MF on 2x96 + 4x48 crops of 32 images, and of the demonstration's network on 2x28 + 2x16 of 256.
/// The GPU gets larger ones, beyond its caches: that of docs/cuda.md's table, and RegNetY-256GF's on 2x224 + 4x96.
std::vector<Images> maps() {
  const auto crops = [](int64_t images, int64_t large, int64_t small, int64_t many) -> Segments {
    return {{2 * images, large, large}, {many * images, small, small}};
  };
  if (device == Device::cuda)
    return {{"56x104", {{64, 56, 56}}, 104},
            {"28x1057", {{128, 28, 28}, {64, 14, 14}}, 1057},
            {"256gf/56x528", crops(16, 56, 24, 4), 528},
            {"256gf/28x1056", crops(32, 28, 12, 4), 1056},
            {"256gf/14x2904", crops(64, 14, 6, 4), 2904},
            {"256gf/7x7392", crops(64, 7, 3, 4), 7392}};
  return {{"400mf/stem48x32", crops(32, 48, 24, 4), 32}, {"400mf/24x48", crops(32, 24, 12, 4), 48},
          {"400mf/12x104", crops(32, 12, 6, 4), 104},    {"400mf/6x208", crops(32, 6, 3, 4), 208},
          {"400mf/3x440", crops(32, 3, 2, 4), 440},      {"demo/28x16", crops(256, 28, 16, 2), 16},
          {"demo/14x32", crops(256, 14, 8, 2), 32},      {"demo/7x80", crops(256, 7, 4, 2), 80},
          {"demo/4x160", crops(256, 4, 2, 2), 160}};
}

/// Times the call; bytes by a rehearsal of the same call, and `again` more that no GPU can keep between two looks.
void measure(benchmark::State& state, const std::function<void(Backend&)>& call, double again = 0) {
  const double before = meta_cost().bytes_moved;
  call(backend(Device::meta));
  const double once = meta_cost().bytes_moved - before;
  Backend& b = backend(device);
  call(b);
  const bool cpu = device == Device::cpu;
  if (cpu) {
    for (auto _ : state) call(b);
  } else {
    for (auto _ : state) state.SetIterationTime(seconds_of(b, 20, call));
  }
  const double moved = (once + (cpu ? 0 : again)) * static_cast<double>(state.iterations());
  state.counters["GB/s"] = benchmark::Counter(moved * 1e-9, benchmark::Counter::kIsRate);
  state.counters["%peak"] =
      benchmark::Counter(100 * moved / (cpu ? bench::peak_bytes() : copy_bytes()), benchmark::Counter::kIsRate);
}

template <class Body>
void add(const std::string& name, Body body) {
  benchmark::internal::Benchmark* b = benchmark::RegisterBenchmark(name.c_str(), body);
  if (device == Device::cpu)
    b->UseRealTime()->Unit(benchmark::kMicrosecond);
  else
    b->UseManualTime()->MinTime(0.01)->Unit(benchmark::kMillisecond);
}

void register_batch_norm(const Images& s, DType dtype) {
  const BatchNorm spec{s.channels, 1e-5f, 0.1f, true, dtype};
  const std::string tail = "/" + s.name + "/" + std::string(name_of(dtype));
  for (const bool backward : {false, true}) {
    for (const bool residual : {false, true}) {
      add(std::string("batch_norm_") + (backward ? "backward" : "forward") + (residual ? "_residual" : "") + tail,
          [=](benchmark::State& state) {
            const size_t bytes = static_cast<size_t>(s.elements()) * size_of(dtype);
            const Operand x(bytes), y(bytes), dy(bytes), r(bytes), statistics(static_cast<size_t>(s.channels) * 40);
            const Operand workspace(backend(device).workspace(BatchNormMoments{spec, s.segments}));
            float* f = statistics.as<float>();
            const auto at = [&](int i) { return f + i * s.channels; };
            const auto once_more = static_cast<double>(bytes);  // x; backward: x, dy, and y where that has the mask
            const double again = once_more * (!backward ? 1 : residual ? 3 : 2);
            const auto call = [&](Backend& b) {
              if (!backward) {
                const BatchNormMoments moments{spec, s.segments, x.as<void>(), at(2), workspace.as<void>()};
                b.run(moments);
                b.run(BatchNormMerge{spec, s.segments, 1, at(2), moments.squares(), at(2), at(4), at(6), at(7)});
                b.run(BatchNormApply{spec, s.segments, x.as<void>(), residual ? r.as<void>() : nullptr, at(0), at(1),
                                     at(2), at(4), y.as<void>()});
              } else {
                const void* mask = residual ? y.as<void>() : nullptr;
                const BatchNormBackwardSums sums{spec,          s.segments, x.as<void>(), mask,
                                                 dy.as<void>(), at(0),      at(1),        at(2),
                                                 at(4),         at(8),      at(9),        workspace.as<void>()};
                b.run(sums);
                b.run(BatchNormBackwardMap{spec, s.segments, x.as<void>(), mask, dy.as<void>(), at(0), at(1), at(2),
                                           at(4), sums.factors(), dy.as<void>(), residual ? r.as<void>() : nullptr});
              }
            };
            measure(state, call, again);
          });
    }
  }
}

void register_maps(const Images& s, DType dtype) {
  const std::string tail = "/" + s.name + "/" + std::string(name_of(dtype));
  const auto with_maps = [&](const char* name, auto call) {
    add(name + tail, [=](benchmark::State& state) {
      const size_t bytes = static_cast<size_t>(s.elements()) * size_of(dtype);
      const Operand x(bytes), y(bytes), dy(bytes);
      const size_t pooled_bytes = static_cast<size_t>(total_images(s.segments) * s.channels) * 4;
      const Operand pooled(pooled_bytes), scale(pooled_bytes);
      measure(state, [&](Backend& b) {
        call(b, x.as<void>(), y.as<void>(), dy.as<void>(), pooled.as<void>(), scale.as<void>());
      });
    });
  };
  with_maps("global_avg_pool_forward", [=](Backend& b, void* x, void*, void*, void* pooled, void*) {
    b.run(GlobalAvgPool{s.segments, s.channels, dtype, x, pooled});
  });
  with_maps("global_avg_pool_backward", [=](Backend& b, void* x, void*, void*, void* pooled, void*) {
    b.run(GlobalAvgPoolGradient{s.segments, s.channels, dtype, pooled, x});
  });
  with_maps("channel_scale_forward", [=](Backend& b, void* x, void* y, void*, void*, void* scale) {
    b.run(ChannelScale{s.segments, s.channels, dtype, x, scale, y});
  });
  with_maps("channel_scale_backward_scale", [=](Backend& b, void* x, void*, void* dy, void* pooled, void*) {
    b.run(ChannelScaleFactorGradient{s.segments, s.channels, dtype, x, dy, pooled});
  });
  with_maps("channel_scale_backward_input", [=](Backend& b, void*, void*, void* dy, void* pooled, void* scale) {
    b.run(ChannelScaleInputGradient{s.segments, s.channels, dtype, dy, scale, pooled, dy});
  });
  with_maps("add", [=](Backend& b, void* x, void* y, void* dy, void*, void*) {
    b.run(Combine{Binary::add, dtype, s.elements(), x, y, dy});
  });
  with_maps("relu_forward", [=](Backend& b, void* x, void* y, void*, void*, void*) {
    b.run(Map{Unary::relu, dtype, s.elements(), x, y});
  });
  with_maps("relu_backward", [=](Backend& b, void* x, void* y, void* dy, void*, void*) {
    b.run(MapGradient{Unary::relu, dtype, s.elements(), y, dy, x});
  });
  with_maps("column_sum", [=](Backend& b, void* x, void*, void*, void* pooled, void*) {
    compute(b.device(), ColumnSum{dtype, total_rows(s.segments), s.channels, x, static_cast<float*>(pooled)});
  });
}

void register_max_pool() {
  const Conv2d window{64, 64, 3, 2, 1, 64, DType::f32};
  const Segments in = {{16, 48, 48}, {32, 24, 24}};
  for (const bool backward : {false, true}) {
    add(backward ? "max_pool_backward/resnet" : "max_pool_forward/resnet", [=](benchmark::State& state) {
      const Operand x(total_rows(in) * 64 * 4), y(total_rows(in) * 64), argmax(total_rows(in) * 16);
      measure(state, [&](Backend& b) {
        backward ? b.run(MaxPoolGradient{window, in, y.as<void>(), argmax.as<uint8_t>(), x.as<void>()})
                 : b.run(MaxPool{window, in, x.as<void>(), y.as<void>(), argmax.as<uint8_t>()});
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
      const Operand scores(sinkhorn.rows * p.prototypes * 4), potentials(p.prototypes * 4);
      const Operand workspace(backend(device).workspace(SinkhornRows{sinkhorn}));
      const double again = 4. * (sinkhorn.iterations - 1) * static_cast<double>(sinkhorn.rows * p.prototypes);
      const auto call = [&](Backend& b) {
        for (int i = 0; i < sinkhorn.iterations; ++i) {
          b.run(SinkhornRows{sinkhorn, i, scores.as<float>(), potentials.as<float>(), workspace.as<void>()});
          b.run(
              SinkhornColumns{sinkhorn, i, scores.as<float>(), potentials.as<float>(), nullptr, workspace.as<void>()});
        }
      };
      measure(state, call, again);
    });
    add(std::string("sinkhorn_assign/") + p.name, [=](benchmark::State& state) {
      const Operand scores(p.batch * p.prototypes * 4), potentials(p.prototypes * 4), q(p.batch * p.prototypes * 4);
      measure(state, [&](Backend& b) {
        b.run(SinkhornAssign{{p.batch, p.prototypes}, scores.as<float>(), potentials.as<float>(), q.as<float>()});
      });
    });
    add(std::string("swapped_prediction/") + p.name, [=](benchmark::State& state) {
      const size_t bytes = static_cast<size_t>(p.batch * p.crops * p.prototypes) * 4;
      const Operand scores(bytes), q(bytes), gradient(bytes), loss(4);
      // Both assignments of an image are read by all its crops but one.
      const double again = 4. * static_cast<double>(2 * (p.crops - 2) * p.batch * p.prototypes);
      const auto call = [&](Backend& b) {
        compute(b.device(), SwappedPredictionLoss{{p.batch, p.crops, 2, p.prototypes},
                                                  scores.as<float>(),
                                                  q.as<float>(),
                                                  loss.as<float>(),
                                                  gradient.as<float>()});
      };
      measure(state, call, again);
    });
  }
  add("l2_normalize_forward/1024x128", [=](benchmark::State& state) {
    const Operand x(1024 * 128 * 4), y(1024 * 128 * 4), norm(1024 * 4);
    measure(state, [&](Backend& b) {
      b.run(L2Normalize{DType::f32, 1024, 128, 1e-12f, x.as<void>(), y.as<void>(), norm.as<float>()});
    });
  });
  add("cross_entropy/256x1000", [=](benchmark::State& state) {
    const Operand x(256 * 1000 * 4), dx(256 * 1000 * 4), loss(4), labels(256 * 4);
    const std::vector<int32_t> sevens(256, 7);
    backend(device).from_host(256 * 4, sevens.data(), labels.as<void>());
    measure(state, [&](Backend& b) {
      compute(b.device(),
              CrossEntropy{256, 1000, x.as<float>(), labels.as<int32_t>(), loss.as<float>(), dx.as<float>()});
    });
  });
}

/// Tensors as a RegNetY has them: many small ones, a few large, `parameters` in all.
void register_optimizers(const char* name, int64_t parameters) {
  for (const char* kind : {"larc_sgd", "adamw"}) {
    add(std::string(kind) + "/" + name, [=](benchmark::State& state) {
      const Operand p(parameters * 4), g(parameters * 4), m(parameters * 4), v(parameters * 4);
      std::vector<ParameterSlot> slots;
      for (int64_t begin = 0; begin < parameters;) {
        const int64_t wanted = slots.size() % 3 == 0 ? parameters / 64 : 256, n = std::min(wanted, parameters - begin);
        slots.push_back(
            {p.as<float>() + begin, g.as<float>() + begin, m.as<float>() + begin, v.as<float>() + begin, n});
        begin += n;
      }
      backend(device).run(Fill{DType::f32, parameters, 1.f, v.as<void>()});
      const bool larc = kind[0] == 'l';
      const auto call = [&](Backend& b) {
        larc ? compute(b.device(), SgdUpdate{{.lr = 1e-6f, .weight_decay = 1e-6f, .trust = 1e-3f}, slots})
             : b.run(AdamWUpdate{{.lr = 1e-6f}, slots});
      };
      measure(state, call, larc ? 8. * static_cast<double>(parameters) : 0);  // norms of weights and gradients first
    });
  }
}

/// Takes --device DEVICE out of the arguments. False where there is no such device, after one sentence.
bool take_device(int& argc, char** argv) {
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) != "--device") {
      argv[kept++] = argv[i];
      continue;
    }
    const std::string_view name = i + 1 < argc ? argv[++i] : "";
    if (name != "cpu" && name != "cuda") {
      std::fprintf(stderr, "bench_kernels: --device is cpu or cuda\n");
      return false;
    }
    device = name == "cuda" ? Device::cuda : Device::cpu;
  }
  argc = kept;
  if (device == Device::cpu) return true;
  const CudaStatus status = cuda_status();
  if (status.devices == 0) std::fprintf(stderr, "bench_kernels: %s\n", status.why_none.c_str());
  return status.devices > 0;
}

void register_all() {
  for (const DType dtype : {DType::f32, device == Device::cpu ? DType::bf16 : DType::f16}) {
    for (const Images& s : maps()) {
      register_batch_norm(s, dtype);
      register_maps(s, dtype);
    }
  }
  register_max_pool();
  register_assignment();
  register_optimizers("400mf", 3900000);
  register_optimizers("demo", 330000);
  if (device == Device::cuda) register_optimizers("32gf", 145000000);
}

void describe_machine() {
  if (device == Device::cuda) {
    benchmark::AddCustomContext("device", cuda_device().name);
    benchmark::AddCustomContext("GB/s of a copy", std::to_string(copy_bytes() * 1e-9));
    return;
  }
  benchmark::AddCustomContext("isa", std::string(name_of(cpu_isa())));
  benchmark::AddCustomContext("threads", std::to_string(cpu_threads()));
  benchmark::AddCustomContext("peak GFLOP/s", std::to_string(bench::peak_flops() * 1e-9));
  benchmark::AddCustomContext("peak GB/s", std::to_string(bench::peak_bytes() * 1e-9));
}

}  // namespace

int main(int argc, char** argv) try {
  if (!take_device(argc, argv)) return 1;
  register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  describe_machine();
  benchmark::RunSpecifiedBenchmarks();
} catch (const Error& error) {
  std::fprintf(stderr, "bench_kernels: %s\n", error.what());
  return 1;
}
