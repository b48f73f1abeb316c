#pragma once

#include <saccade/kernels/elementwise.h>

namespace saccade::kernels::cpu {

struct ElementwiseKernels {
  void (*fill)(const Fill&);
  void (*cast)(const Cast&);
  void (*map)(const Map&);
  void (*map_gradient)(const MapGradient&);
  void (*combine)(const Combine&);
  void (*scale)(const Scale&);
  static const ElementwiseKernels baseline, avx2, avx512;
};

}  // namespace saccade::kernels::cpu
