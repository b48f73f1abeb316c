#pragma once

#include <saccade/kernels/assignment.h>
#include <saccade/kernels/batch_norm.h>
#include <saccade/kernels/elementwise.h>
#include <saccade/kernels/optimizer.h>
#include <saccade/kernels/pixels.h>
#include <saccade/kernels/pooling.h>
#include <saccade/kernels/rows.h>

#include <cstddef>

/// Our CUDA kernels as functions of the host: run() puts a call's kernels into a stream and returns. Pointers are the
/// device's; a workspace has as many bytes as workspace() says and begins at a multiple of 16.
///
/// Results are pure functions of the arguments: reductions are cut by shape, summed in two stages, and use no atomics.
/// Storage is f32, f16 or bf16, arithmetic f32. Pointers that are aligned to 16 bytes are read in vectors of 16;
/// others work, slowly.
namespace saccade::kernels::cuda {

/// A cudaStream_t.
using Stream = void*;

// elementwise.cu
void run(Stream, const Fill&);
void run(Stream, const Cast&);
void run(Stream, const Map&);
void run(Stream, const MapGradient&);
void run(Stream, const Combine&);
void run(Stream, const Scale&);

// rows.cu
size_t workspace(const ColumnSum&);
void run(Stream, const ColumnSum&);
size_t workspace(const Sum&);
void run(Stream, const Sum&);
void run(Stream, const L2Normalize&);
void run(Stream, const L2NormalizeGradient&);
void run(Stream, const LogSumExp&);
void run(Stream, const LogSumExpGradient&);

// batch_norm.cu. At most 16 segments.
size_t workspace(const BatchNormMoments&);
void run(Stream, const BatchNormMoments&);
void run(Stream, const BatchNormMerge&);
void run(Stream, const BatchNormApply&);
void run(Stream, const BatchNormInference&);
size_t workspace(const BatchNormBackwardSums&);
void run(Stream, const BatchNormBackwardSums&);
void run(Stream, const BatchNormBackwardMap&);

// pooling.cu and max_pool.cu. At most 16 segments.
void run(Stream, const GlobalAvgPool&);
void run(Stream, const GlobalAvgPoolGradient&);
void run(Stream, const ChannelScale&);
void run(Stream, const ChannelScaleFactorGradient&);
void run(Stream, const ChannelScaleInputGradient&);
void run(Stream, const MaxPool&);
void run(Stream, const MaxPoolGradient&);

// assignment.cu
size_t workspace(const SinkhornRows&);
void run(Stream, const SinkhornRows&);
size_t workspace(const SinkhornColumns&);
void run(Stream, const SinkhornColumns&);
void run(Stream, const SinkhornAssign&);
size_t workspace(const SwappedPredictionLoss&);
void run(Stream, const SwappedPredictionLoss&);
size_t workspace(const CrossEntropy&);
void run(Stream, const CrossEntropy&);

// optimizer.cu. The lists of tensors go along as arguments of the kernels: nothing is copied beforehand.
size_t workspace(const SgdUpdate&);  ///< LARC's sums of squares; 0 without
void run(Stream, const SgdUpdate&);
void run(Stream, const AdamWUpdate&);
void run(Stream, const Unscale&);
void run(Stream, const MovingAverage&);

// input.cu
void run(Stream, const CropsToBatch&);

}  // namespace saccade::kernels::cuda
