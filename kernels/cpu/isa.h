#pragma once

#include <saccade/kernels/assignment.h>
#include <saccade/kernels/backend.h>
#include <saccade/kernels/batch_norm.h>
#include <saccade/kernels/conv.h>
#include <saccade/kernels/optimizer.h>

/// Private to the CPU backend: the kernels that are compiled once per instruction set (simd/*.cpp), as tables of
/// functions, one table a family. The files of simd/ take plain pointers and counts and call no inline function of
/// other headers: a weak copy of one, compiled for a wide set, could be the one the linker keeps for everybody.
namespace saccade::kernels::cpu {

struct ElementwiseKernels {
  void (*fill)(DType, int64_t n, float value, void* y);
  void (*cast)(DType from, DType to, int64_t n, const void* x, void* y);
  void (*add)(DType, int64_t n, const void* a, const void* b, void* y);
  void (*scale)(DType, int64_t n, const void* x, float factor, void* y);
  void (*multiply)(DType, int64_t n, const void* a, const void* b, void* y);
  void (*relu_forward)(DType, int64_t n, const void* x, void* y);
  void (*relu_backward)(DType, int64_t n, const void* y, const void* dy, void* dx);
  void (*sigmoid_forward)(DType, int64_t n, const void* x, void* y);
  void (*sigmoid_backward)(DType, int64_t n, const void* y, const void* dy, void* dx);
};

struct RowKernels {
  void (*column_sum)(DType, int64_t rows, int64_t channels, const void* x, float* out);
  void (*sum)(DType, int64_t n, const void* x, float* out);
  void (*l2_normalize_forward)(DType, int64_t rows, int64_t channels, float eps, const void* x, void* y, float* norm);
  void (*l2_normalize_backward)(DType, int64_t rows, int64_t channels, float eps, const void* y, const float* norm,
                                const void* dy, void* dx);
};

/// One call of batch normalisation. The rows of each segment are cut into chunks of `chunk_rows` (the last may be
/// shorter): the unit of the reductions, whatever the number of threads.
struct BatchNormCall {
  static constexpr int64_t partial_rows = 3, coefficient_rows = 3;
  BatchNorm spec;
  const Segment* segments;
  int64_t segment_count;
  int64_t chunk_rows, chunks;  ///< chunks: of all segments
  const void *x, *residual;    ///< forward
  const void *saved_y, *dy;    ///< backward; saved_y null: the ReLU mask comes from x
  const float *gamma, *beta;
  float *mean, *rstd;  ///< forward writes, apply and backward read
  float *running_mean, *running_var;
  void *y, *dx, *dresidual;
  float *dgamma, *dbeta;
  float* partial_sums;  ///< (chunks, partial_rows, padded)
  float* coefficients;  ///< (segments, coefficient_rows, padded), of backward
  int64_t padded;       ///< channels rounded up to whole vectors
};

struct BatchNormKernels {
  void (*forward)(const BatchNormCall&);
  void (*apply)(const BatchNormCall&);  ///< forward's second pass
  void (*backward)(const BatchNormCall&);
  void (*inference)(const BatchNorm&, int64_t rows, const void* x, const void* residual, const float* gamma,
                    const float* beta, const float* running_mean, const float* running_var, void* y);
};

/// `Segment*, int64_t` stand for a span of segments.
struct PoolingKernels {
  void (*average_forward)(const Segment*, int64_t, int64_t channels, DType, const void* x, void* pooled);
  void (*average_backward)(const Segment*, int64_t, int64_t channels, DType, const void* dpooled, void* dx);
  void (*scale_forward)(const Segment*, int64_t, int64_t channels, DType, const void* x, const void* scale, void* y);
  void (*scale_backward_scale)(const Segment*, int64_t, int64_t channels, DType, const void* x, const void* dy,
                               void* dscale);
  void (*scale_backward_input)(const Segment*, int64_t, int64_t channels, DType, const void* dy, const void* scale,
                               const void* dpooled, void* dx);
  /// One segment `in`, whose output is `out`.
  void (*max_forward)(const Conv2d&, const Segment& in, const Segment& out, const void* x, void* y, uint8_t* argmax);
  void (*max_backward)(const Conv2d&, const Segment& in, const Segment& out, const void* dy, const uint8_t* argmax,
                       void* dx);
};

/// Where the Sinkhorn kernel keeps its state, all f32 in the caller's workspace.
struct SinkhornScratch {
  int64_t chunk_rows, chunks;
  float* row_potentials;  ///< c, (rows)
  float* columns;         ///< (chunks, prototypes): column sums of each chunk of rows
  float* exponentials;    ///< (chunks, prototypes): one row at work a chunk
};

struct AssignmentKernels {
  void (*sinkhorn_potentials)(const Sinkhorn&, const SinkhornScratch&, const float* scores, float* potentials);
  void (*sinkhorn_assign)(const Sinkhorn&, const float* scores, const float* potentials, float* q);
  void (*swapped_prediction)(const SwappedPrediction&, const float* scores, const float* q, float* loss,
                             float* dscores);
  void (*cross_entropy)(int64_t rows, int64_t classes, const float* logits, const int32_t* labels, float* loss,
                        float* dlogits);
};

/// A range of one tensor: the unit of the multi-tensor optimisers.
struct Piece {
  ParameterSlot slot;                          ///< pointers to the range, `elements` its length
  int64_t tensor, first;                       ///< whose it is, and its first element there
  double parameter_squares, gradient_squares;  ///< sums of squares, by square_sums
  float trust_ratio;                           ///< LARC's r, or 0: use the gradient as it is
};

/// A range of one gradient.
struct GradientPiece {
  GradientSlot slot;
  bool finite;  ///< whether all of it was, by unscale
};

struct OptimizerKernels {
  void (*square_sums)(Piece*, int64_t pieces);
  void (*sgd)(const Sgd&, const Piece*, int64_t pieces);
  void (*adamw)(const AdamW&, float correction1, float correction2, const Piece*, int64_t pieces);
  void (*unscale)(float factor, GradientPiece*, int64_t pieces);
};

namespace baseline {
extern const ElementwiseKernels elementwise;
extern const RowKernels rows;
extern const BatchNormKernels batch_norm;
extern const PoolingKernels pooling;
extern const AssignmentKernels assignment;
extern const OptimizerKernels optimizer;
}  // namespace baseline

namespace avx2 {
extern const ElementwiseKernels elementwise;
extern const RowKernels rows;
extern const BatchNormKernels batch_norm;
extern const PoolingKernels pooling;
extern const AssignmentKernels assignment;
extern const OptimizerKernels optimizer;
}  // namespace avx2

namespace avx512 {
extern const ElementwiseKernels elementwise;
extern const RowKernels rows;
extern const BatchNormKernels batch_norm;
extern const PoolingKernels pooling;
extern const AssignmentKernels assignment;
extern const OptimizerKernels optimizer;
}  // namespace avx512

/// The table of the instruction set in use.
template <class Table>
const Table& for_this_processor(const Table& baseline, const Table& avx2, const Table& avx512) {
  const Isa isa = cpu_isa();
  return isa == Isa::avx512 ? avx512 : isa == Isa::avx2 ? avx2 : baseline;
}

/// Throws unless the storage type is one the CPU's kernels read and write: f32, f16, bf16.
void require_floating(DType dtype, const char* where);

/// Between f32, f16 and bf16.
void cast_floating(DType from, DType to, int64_t n, const void* x, void* y);
/// y = a + b in f32; y may be a or b.
void add_floats(int64_t n, const void* a, const void* b, void* y);

}  // namespace saccade::kernels::cpu
