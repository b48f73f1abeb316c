#pragma once

#include <cstddef>
#include <cstdint>

/// Our own 3x3 convolution (padding 1, stride 1 or 2) in f32 on NHWC, for few channels a group. Private to kernels/cpu.
namespace saccade::kernels::cpu {

/// A pass that turns images of `reduced` channels a group into images of `produced` channels a group: the forward pass,
/// or (gradient) the data gradient, whose source is dy.
struct GroupedConv {
  int64_t groups = 0, reduced = 0, produced = 0, stride = 1;
  bool gradient = false;
  bool pair =
      false;  ///< AVX-512, 8 to 8 channels: two groups share a register of 16 (elsewhere it makes no difference)
};

/// Images of one segment on both sides.
struct GroupedImages {
  int64_t n = 0, source_h = 0, source_w = 0, result_h = 0, result_w = 0;
};

/// The kernels of one instruction set. All scratch is the caller's.
struct GroupedConvKernels {
  size_t (*packed_weights_bytes)(const GroupedConv&);
  /// w as Conv2d stores it -> the order in which images() reads it.
  void (*pack_weights)(const GroupedConv&, const float* w, float* packed);
  size_t (*images_scratch_bytes)(const GroupedConv&, const GroupedImages&);  ///< for each thread
  void (*images)(const GroupedConv&, const GroupedImages&, const float* source, const float* packed, float* result,
                 float* scratch);
};

/// The weight gradient (of a GroupedConv in the forward sense): partial sums of chunks of images, then their sum.
struct GroupedConvWeightKernels {
  int64_t (*chunks)(const GroupedImages&);                            ///< that a segment is cut into
  size_t (*partial_bytes)(const GroupedConv&);                        ///< for each chunk
  size_t (*scratch_bytes)(const GroupedConv&, const GroupedImages&);  ///< for each thread
  void (*partials)(const GroupedConv&, const GroupedImages&, const float* x, const float* dy, float* partial,
                   float* scratch);
  /// Adds the chunks of all segments in their order (into the first) and writes dw as Conv2d stores it.
  void (*sum)(const GroupedConv&, int64_t chunks, float* partial, float* dw);
};

namespace baseline {
extern const GroupedConvKernels grouped_conv;
extern const GroupedConvWeightKernels grouped_conv_weight;
}  // namespace baseline
namespace avx2 {
extern const GroupedConvKernels grouped_conv;
extern const GroupedConvWeightKernels grouped_conv_weight;
}  // namespace avx2
namespace avx512 {
extern const GroupedConvKernels grouped_conv;
extern const GroupedConvWeightKernels grouped_conv_weight;
}  // namespace avx512

}  // namespace saccade::kernels::cpu
