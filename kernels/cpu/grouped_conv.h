#pragma once

#include <saccade/kernels/dtype.h>

/// Our own 3x3 convolution (padding 1, stride 1 or 2) on NHWC, for few channels a group: images in f32, bf16 or f16,
/// arithmetic in f32. Private to kernels/cpu.
///
/// GFLOP/s, forward / data gradient / weight gradient, of one thread of a Zen 4 (peak 118; padding counts as work, so
/// that small maps can exceed it), by bench/conv; "24@14" is 24 channels on 512 maps of 14 x 14 and 512 of 8 x 8, and
/// so on as listed there. Own loses only where marked *; 56: 448@12's weight gradient is left to oneDNN. Strided
/// convolutions of large maps are bound by memory; 64 s2@14 is of single groups, the pairs in use do 50 / 45 / 50.
///
///     group 8              own             oneDNN        group 16, 24, 56      own             oneDNN
///     24@14          91 /  91 /  88   70 / 78 / 57       16: 64@7        116 / 115 / 103  *133 / 84 / 84
///     24 s2@14       76 /  67 /  66   60 / 52 / 36       16: 64 s2@14     75 /  64 /  76   *76 /*87 / 52
///     64@7          109 / 110 /  92   57 / 60 / 33       16: 160@4       137 / 134 / 102   122 / 55 / 91
///     64 s2@14       60 /  53 /  53   26 / 33 / 25       16: 144@12      105 / 106 /  95  *112 / 66 / 78
///     64@4          126 / 126 /  99   52 / 51 / 39       16: 320@6       127 / 127 /  90  *132 /106 /*117
///     152@2         141 / 133 /  88   41 / 49 / 38       24: 120@12      110 / 109 /  91    76 / 78 / 66
///     104@12         92 /  90 /  77   48 / 57 / 29       24: 336@6       127 / 127 /  71    68 / 98 / 64
///     440@3         119 / 124 /  73   42 / 49 / 33       56: 448@12      105 / 104 /  75    93 / 97 /*85
///
/// On images in bf16 or f16 the same arithmetic is done on widened copies: 0.75 (large maps, bound by memory) to 1.1
/// (tiny maps of 2 x 2, bound by the conversion of results) times the time of f32.
///
/// Capped at AVX2 (same peak), 64@7: 80 / 83 / 65 against 33 / 48 / 38; at SSE (peak 44): 36 / 39 / 31 against
/// 22 / 13 / 12.
namespace saccade::kernels::cpu {

/// A pass that turns images of `reduced` channels a group into images of `produced` channels a group: the forward pass,
/// or (gradient) the data gradient, whose source is dy.
struct GroupedConv {
  int64_t groups = 0, reduced = 0, produced = 0, stride = 1;
  bool gradient = false;
  bool pair = false;         ///< two groups of 8 to 8 channels share a register of AVX-512; no difference elsewhere
  DType dtype = DType::f32;  ///< of the images on both sides
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
  void (*images)(const GroupedConv&, const GroupedImages&, const void* source, const float* packed, void* result,
                 float* scratch);
  static const GroupedConvKernels baseline, avx2, avx512;
};

/// The weight gradient (of a GroupedConv in the forward sense): partial sums of chunks of images, then their sum.
struct GroupedConvWeightKernels {
  int64_t (*chunks)(const GroupedImages&);                            ///< that a segment is cut into
  size_t (*partial_bytes)(const GroupedConv&);                        ///< for each chunk
  size_t (*scratch_bytes)(const GroupedConv&, const GroupedImages&);  ///< for each thread
  void (*partials)(const GroupedConv&, const GroupedImages&, const void* x, const void* dy, float* partial,
                   float* scratch);
  /// Adds the chunks of all segments in their order (into the first) and writes dw as Conv2d stores it.
  void (*sum)(const GroupedConv&, int64_t chunks, float* partial, float* dw);
  static const GroupedConvWeightKernels baseline, avx2, avx512;
};

}  // namespace saccade::kernels::cpu
