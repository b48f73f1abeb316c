#pragma once

#include <saccade/vision/training.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

/// @file
/// What a training takes where nobody says otherwise: chosen from the images, and from the time that there is.

namespace saccade::vision {

/// What of images a training's settings follow from.
struct ImageFacts {
  int64_t count = 0;
  int side = 0;       ///< the shorter, pixels: the median of those looked at
  bool gray = false;  ///< all those looked at are gray, however they are stored
};

/// Looks at some images, evenly spread over the source; those that cannot be read are passed over. Throws Error when
/// none can.
ImageFacts look_at(const data::Source& source, int64_t most = 64);

/// A setting that was chosen.
struct Choice {
  std::string setting, value;  ///< the value as text, as a flag takes it
  std::string reason;          ///< why: a clause
};

/// Whether somebody gave a setting, which is then left as it is.
using Given = std::function<bool(const std::string& setting)>;

/// Fills in what follows from the images alone: crops, how they are changed, the size of whole ones, trunk and batch.
std::vector<Choice> choose(Training& training, const ImageFacts& images, const Given& given = {});

/// The method that makes most of minutes.
Choice choose_method();

struct Time {
  double minutes = 0;
  int64_t memory = 0;  ///< budget of the whole, as ssl::keep_budget() takes it; 0: none
};

/// Fills in all that was not given, so that the training ends within the time: trunk and crops are the dearest that can
/// be shown enough images in it, as their first steps, which are run on `device` and forgotten, tell; the schedule is
/// as many iterations as the time holds by that measure, and about a twentieth of the time is left for what comes
/// before and after. The method is chosen first, unless "method" or a setting of the training's own was given. Throws
/// Error when the time is not enough for ten iterations.
std::vector<Choice> choose_within(const Time& time, Training& training, data::Source& source, Device device,
                                  const Given& given = {});

}  // namespace saccade::vision
