#pragma once

/// @file
/// What a network is worth where few images have labels: beside a linear classifier on its features the whole network,
/// trained on those, and one of the same kind that begins with random weights.

#include <saccade/data/evaluate.h>
#include <saccade/ssl/eval/fine_tune.h>
#include <saccade/ssl/network.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <vector>

namespace saccade::program {

/// The flags, and what they ask for.
struct FewLabels {
  std::vector<double> shares;
  int64_t draws = 5;
  int batch = 32;
  float flip = 0.5f;
  ssl::FineTuneOptions tune = {.iterations = 200};

  void flags(CLI::App& app);

  /// Throws Error, naming the flag, where the images cannot be drawn.
  void check(const data::Source& train) const;

  /// Prints a table of means over the draws and their standard errors: of each share accuracy and, with two classes,
  /// AUROC.
  /// @param bank     rows of the images to learn from: features, and what they are compared with; of several kinds the
  ///                 last are raw pixels
  /// @param queries  likewise, of those to be judged by
  void judge(const ssl::Network& network, const data::LabelledPair& images, const std::vector<data::Rows>& bank,
             const std::vector<data::Rows>& queries, int workers) const;
};

}  // namespace saccade::program
