#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

/// @file
/// Which layers of a chain to recompute, so that a step fits a memory and costs the least time. After Beaumont,
/// Eyraud-Dubois, Herrmann, Joly and Shilova, "Optimal checkpointing for heterogeneous chains: how to train deep neural
/// networks with limited memory" (2019, "rotor"), with several ways to save a layer as in Rockmate (Zhao et al. 2023).
/// Pure arithmetic on bytes and seconds: knows no tensor.

namespace saccade::plan {

/// One way to run a layer's forward so that its backward can follow. Bytes.
struct SaveMode {
  std::string name;
  int64_t saved = 0;          ///< live between forward and backward, the layer's output included, its input not
  int64_t forward_peak = 0;   ///< most that is live at any moment of the forward, beside the input
  int64_t backward_peak = 0;  ///< most that is live at any moment of the backward, beside input, saved, and the
                              ///< output's gradient: the input's gradient and the parameters' count here
  double extra_seconds = 0;   ///< what its backward takes more than the layer's backward_seconds
};

/// Layer i turns a_i into a_{i+1}. Sizes in bytes.
struct ChainLayer {
  std::string name;
  double forward_seconds = 0, backward_seconds = 0;
  int64_t output_bytes = 0, output_gradient_bytes = 0;
  int64_t gradient_bytes = 0;  ///< of parameters, that stay from its backward on; 0 when the optimiser is fused
  int64_t forward_peak = 0;    ///< most that is live in a forward that saves nothing, beside the input
  std::vector<SaveMode> modes = {};
};

/// What happens to one layer (saved in a mode), or to a run of layers of which only the input is kept: when backward
/// arrives there, the run's forward is done once more, as `inside` says.
struct Step {
  bool is_run = false;
  size_t layer = 0, last = 0;  ///< the layer, or the first of the run, and one past it
  size_t mode = 0;             ///< of a saved layer: index into its modes
  std::vector<Step> inside = {};
};

/// Steps that cover a chain, in its order. An infeasible plan has none.
struct Plan {
  std::vector<Step> steps;
  double seconds = 0;        ///< forward and backward of the chain, recomputation included
  double extra_seconds = 0;  ///< of those, what forward and backward of each layer once do not explain
  bool feasible = false;
};

/// The cheapest plan that needs at most `memory` bytes beside a_0 and what lives for the whole step. The gradient of
/// the chain's output counts, and is taken as live during the forward as well: end the chain with the loss.
/// @param slots  memory is divided so finely; each saved layer or kept input may waste up to one slot, and time grows
///               in proportion
/// @return infeasible when no plan is found
Plan plan_chain(std::span<const ChainLayer> layers, int64_t memory, int slots = 400);

/// The least memory for which any plan exists, exactly.
int64_t smallest_memory(std::span<const ChainLayer> layers);

/// @name Plans without a search, to compare with. A layer that has fewer modes is saved in its last.
/// @{
Plan save_all(std::span<const ChainLayer> layers, size_t mode);
/// Runs begin at the layers `starts` (ascending, the first 0) and are saved in `mode` when recomputed; the last run is
/// recomputed as well.
Plan recompute_runs(std::span<const ChainLayer> layers, std::span<const size_t> starts, size_t mode);
/// Each layer a run of its own.
Plan recompute_each(std::span<const ChainLayer> layers, size_t mode);
/// @}

/// Most that is live at any moment of the step under a plan, by the same rules, exactly.
int64_t simulated_peak(std::span<const ChainLayer> layers, const Plan& plan);

/// What a plan means for one layer.
struct LayerUse {
  size_t mode = 0;   ///< in which it is saved before its backward
  int forwards = 0;  ///< how often its forward runs: 1 without recomputation
};
std::vector<LayerUse> by_layer(std::span<const ChainLayer> layers, const Plan& plan);

/// "0-3 recomputed [0-2 lean, 3 eager], 4-27 eager"; a run of one layer after another is "each".
std::string describe(std::span<const ChainLayer> layers, const Plan& plan);

}  // namespace saccade::plan
