#pragma once

#include <saccade/kernels/optimizer.h>

namespace saccade::kernels::cpu {

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

/// Fills in the pieces' sums of squares.
struct SquareSums {
  Piece* pieces;
  int64_t count;
};

}  // namespace saccade::kernels::cpu
