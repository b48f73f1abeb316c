#pragma once

#include <saccade/kernels/rows.h>

namespace saccade::kernels::cpu {

struct RowKernels {
  void (*column_sum)(const ColumnSum&);
  void (*sum)(const Sum&);
  void (*l2_normalize)(const L2Normalize&);
  void (*l2_normalize_gradient)(const L2NormalizeGradient&);
  void (*log_sum_exp)(const LogSumExp&);
  void (*log_sum_exp_gradient)(const LogSumExpGradient&);
  static const RowKernels baseline, avx2, avx512;
};

}  // namespace saccade::kernels::cpu
