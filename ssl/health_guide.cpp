#include <saccade/ssl/health.h>

#include <algorithm>
#include <limits>

namespace saccade::ssl {

namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();  ///< beyond it lies nothing
using Bad = MetricGuide::Bad;

// Where runs are known to lie: healthy ones on Fashion-MNIST have, once they have learned, a loss gap of 2.0-2.6,
// spread 0.94-0.98, common direction 0.01-0.16, view margin 0.75-0.95, assignment entropy 0.40-0.64, prediction
// marginal 0.995; those that were made to collapse have a spread of 0.00-0.08, common direction 0.95-1, view margin
// 0.00-0.02 and assignment entropy 0.99-1. Spectrum and Sinkhorn error tell no one from the other (slopes of 1.7-3.3
// and 2.3-2.5; errors of 0.2-5 for sharp scores, 0.00 in collapse), so they have no bands.
constexpr MetricGuide kGuides[] = {
    {"loss gap", Bad::neither, kNone, kNone,
     "ln K minus the loss. It should grow; near 0 the network does no better than chance."},
    {"spread", Bad::low, 0.5, 0.1, "How evenly embeddings fill their sphere. Near 1 is healthy, below 0.1 collapsed."},
    {"common direction", Bad::high, 0.5, 0.9,
     "What all embeddings share. Near 0 is healthy, above 0.9 nearly all of them is shared."},
    {"view margin", Bad::low, -kNone, 0.02, "How much closer two views of one image are than views of two. It grows."},
    {"assignment entropy", Bad::high, 0.95, 0.99,
     "Softness of the assignments. It falls while the run learns, to 0.1-0.8; 1 says nothing."},
    {"prediction marginal", Bad::low, 0.8, -kNone, "Whether all prototypes are predicted. Near 1 is healthy."},
    {"Sinkhorn error", Bad::neither, kNone, kNone,
     "How far prototypes are from equal use after the iterations: 0.2-5 once scores are sharp, and no trouble."},
    {"effective rank", Bad::neither, kNone, kNone, "Dimensions in use (RankMe). Compare within one recipe only."},
    {"spectrum slope", Bad::neither, kNone, kNone,
     "Decay of the eigenvalues (alpha-ReQ). Compare within one recipe only."},
    {"loss since queue", Bad::high, kNone, 0.02, "Change of the loss since the queue came into use. It should fall."},
};

}  // namespace

Band MetricGuide::band(double value) const {
  const auto beyond = [&](double limit) {
    return bad == Bad::high ? value > limit : bad == Bad::low ? value < limit : false;
  };
  return beyond(alarm) ? Band::alarm : beyond(warn) ? Band::warn : Band::healthy;
}

const MetricGuide* metric_guide(std::string_view name) {
  const auto* found = std::ranges::find(kGuides, name, &MetricGuide::name);
  return found == std::end(kGuides) ? nullptr : found;
}

}  // namespace saccade::ssl
