#pragma once

#include <saccade/kernels/call.h>

#include <string_view>

/// @file
/// Assignments and losses, f32.

namespace saccade::kernels {

/// Sinkhorn-Knopp assignment in the log domain (Cuturi 2013; SwAV, Caron et al. 2020, eq. 3-4 and appendix A.1).
/// With S (rows, prototypes): a_k = -ln K - LSE_b(S/eps + c_b), c_b = -ln N - LSE_k(S/eps + a_k), starting from
/// constant c, `iterations` times; q[b, :] = softmax_k(S[b, :]/eps + a).
///
/// An iteration is SinkhornRows, then SinkhornColumns with the same workspace. Processes that share the rows of a batch
/// exchange the potentials a after each: those of all rows are -ln sum over processes of exp(-a).
struct Sinkhorn {
  int64_t rows = 0, prototypes = 0;
  float eps = 0.05f;
  int iterations = 3;
  int64_t rows_everywhere = 0;  ///< N where other processes have rows too; 0: `rows`
};

/// Potentials c of the rows, and the columns' sums. The first iteration reads no potentials.
struct SinkhornRows {
  Sinkhorn spec = {};
  int iteration = 0;
  const float *scores = nullptr, *potentials = nullptr;
  void* workspace = nullptr;
  static constexpr std::string_view name = "sinkhorn_rows";
  static void operands(auto& c, auto&& visit) {
    const Use again = c.iteration == 0 ? Use::read : Use::shared;
    visit(c.scores, bytes_of_floats(c.spec.rows * c.spec.prototypes), again);
    visit(c.potentials, bytes_of_floats(c.spec.prototypes), again);
  }
  static void shape(auto& c, auto&& visit) { visit(c.spec.rows), visit(c.spec.prototypes), visit(c.iteration); }
};

/// Potentials a of the prototypes. After the first iteration they are off by a constant, the same for all of them:
/// *largest, which may be null, of the exponents S/eps. Processes take it off before their exchange.
struct SinkhornColumns {
  Sinkhorn spec = {};
  int iteration = 0;
  const float* scores = nullptr;
  float *potentials = nullptr, *largest = nullptr;
  void* workspace = nullptr;
  static constexpr std::string_view name = "sinkhorn_columns";
  static void operands(auto& c, auto&& visit) {
    visit(c.scores, bytes_of_floats(c.spec.rows * c.spec.prototypes), Use::shared);
    visit(c.potentials, bytes_of_floats(c.spec.prototypes), Use::shared);
    visit(c.largest, bytes_of_floats(1), optional(Use::shared));
  }
  static void shape(auto& c, auto&& visit) { visit(c.spec.rows), visit(c.spec.prototypes), visit(c.iteration); }
};

/// q (rows, prototypes) = softmax over prototypes of scores/eps + potentials, for any rows scored alike.
struct SinkhornAssign {
  Sinkhorn spec = {};
  const float *scores = nullptr, *potentials = nullptr;
  float* q = nullptr;
  static constexpr std::string_view name = "sinkhorn_assign";
  static void operands(auto& c, auto&& visit) {
    visit(c.scores, bytes_of_floats(c.spec.rows * c.spec.prototypes), Use::fresh);
    visit(c.potentials, bytes_of_floats(c.spec.prototypes), Use::read);
    visit(c.q, bytes_of_floats(c.spec.rows * c.spec.prototypes), Use::write);
  }
  static void shape(auto& c, auto&& visit) { visit(c.spec.rows), visit(c.spec.prototypes); }
};

/// SwAV's swapped-prediction loss (Caron et al. 2020, eq. 1-2, over all ordered pairs of an assigning and a predicting
/// crop): L = 1/A sum_i 1/(V-1) sum_{v != i} mean_b( -sum_k q_i[b,k] log softmax(s_v[b,:]/tau)[k] ).
/// Scores are crop-major: row v * batch + b. Assignments likewise, for the first `assigning` crops.
struct SwappedPrediction {
  int64_t batch = 0, crops = 0, assigning = 2, prototypes = 0;
  float temperature = 0.1f;
};

/// loss: 1 value; dscores (crops*batch, prototypes): the gradient at dloss = 1. One pass over the scores.
struct SwappedPredictionLoss {
  SwappedPrediction spec = {};
  const float *scores = nullptr, *q = nullptr;
  float *loss = nullptr, *dscores = nullptr;
  void* workspace = nullptr;
  static constexpr std::string_view name = "swapped_prediction";
  static void operands(auto& c, auto&& visit) {
    const int64_t crop = bytes_of_floats(c.spec.batch * c.spec.prototypes);
    visit(c.scores, c.spec.crops * crop, Use::fresh);
    visit(c.q, c.spec.assigning * crop, Use::fresh);
    visit(c.loss, bytes_of_floats(1), Use::write);
    visit(c.dscores, c.spec.crops * crop, Use::write);
  }
  static void shape(auto& c, auto&& visit) {
    visit(c.spec.batch), visit(c.spec.crops), visit(c.spec.assigning), visit(c.spec.prototypes);
  }
};

/// Mean softmax cross-entropy with class labels: loss 1 value, dlogits (rows, classes) at dloss = 1. `without_own`: row
/// i knows no class i (what is compared with all but itself), whose gradient is 0.
struct CrossEntropy {
  int64_t rows = 0, classes = 0;
  const float* logits = nullptr;
  const int32_t* labels = nullptr;
  float *loss = nullptr, *dlogits = nullptr;
  void* workspace = nullptr;
  bool without_own = false;
  static constexpr std::string_view name = "cross_entropy";
  static void operands(auto& c, auto&& visit) {
    visit(c.logits, bytes_of_floats(c.rows * c.classes), Use::fresh);
    visit(c.labels, bytes_of(DType::i32, c.rows), Use::read);
    visit(c.loss, bytes_of_floats(1), Use::write);
    visit(c.dlogits, bytes_of_floats(c.rows * c.classes), Use::write);
  }
  static void shape(auto& c, auto&& visit) { visit(c.rows), visit(c.classes), visit(c.without_own); }
};

}  // namespace saccade::kernels
