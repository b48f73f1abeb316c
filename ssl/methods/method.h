#pragma once

#include <saccade/nn/trunk.h>
#include <saccade/ssl/train/objective.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

/// @file
/// A method as a value: what a program must know to offer it to its users. The table of all is methods.h.

namespace saccade::ssl {

/// What of a run defaults follow from.
struct RunFacts {
  int64_t images = 0;              ///< of an iteration
  int64_t features = 0;            ///< of the trunk: nn::Trunk::out_channels()
  int64_t data = 0;                ///< images there are; 0: not known
  int64_t per_epoch = 1;           ///< iterations
  int64_t iterations = 1;          ///< of the whole run
  std::string optimizer = "larc";  ///< or "adamw"
};

/// How a value is found that nobody set.
struct Default {
  std::string text = {};  ///< in words
  std::function<double(const RunFacts&)> find = {};
};

/// Which numbers make sense.
struct Range {
  std::string expected;  ///< "a number from 2 to 9"
  std::function<bool(double)> holds;

  static Range between(double low, double high);
  static Range at_least(double low);  ///< and no more than 1e15
  static Range above_zero();
};

/// Something that the user of a method may choose.
struct Setting {
  std::string name;                                   ///< "prototypes": a program's flag is --prototypes
  std::string help;                                   ///< in a sentence or less
  std::variant<int64_t*, int*, float*, bool*> value;  ///< where it lies, in the options of its Method
  std::optional<Range> range = {};
  Default otherwise = {};  ///< empty: what lies there
  bool sizes = false;      ///< it changes what a step costs

  void set(double value) const;
  std::string text() const;  ///< the value as it is now
};

/// Makes one more trunk like the one that is trained, with the same first values: a teacher.
using MakeTrunk = std::function<std::shared_ptr<nn::Trunk>()>;

/// A method of self-supervision with options to be chosen. The functions look at the options, whose places the settings
/// are, when they are called; copies of a Method share them.
struct Method {
  std::string name;   ///< "swav": what it is called in settings
  std::string title;  ///< "SwAV"
  std::string about;  ///< in a sentence: what it teaches, whose it is
  std::vector<Setting> settings;

  /// What a run takes where nobody chose otherwise.
  std::string crops = "2x96@0.14-1+4x48@0.05-0.14";  ///< as data::parse_crops() reads them
  int64_t crops_of_each = 0;                         ///< that it takes of an image; 0: two or more
  std::string optimizer = "larc";                    ///< or "adamw"
  float weight_decay = 1e-6f;
  Default lr, warmup;  ///< the top of the schedule; iterations

  /// The setting that does not go with the run, and what was expected of it; nothing if all do.
  struct Misfit {
    std::string setting, expected;
  };
  std::function<std::optional<Misfit>(const RunFacts&)> misfit = {};
  /// What of the settings a line about the run should say: "256 prototypes".
  std::function<std::string()> summary = {};
  /// The objective around a trunk, on the current device.
  std::function<std::unique_ptr<Objective>(std::shared_ptr<nn::Trunk> trunk, const MakeTrunk& another, uint64_t seed)>
      make;
  /// The same with the dearest step that the settings lead to, for a Planner; if empty, each step of make() is that.
  std::function<std::unique_ptr<Objective>(std::shared_ptr<nn::Trunk> trunk, const MakeTrunk& another)> make_dearest =
      {};

  /// Gives settings that were not chosen the values that the facts lead to.
  void settle(const RunFacts& facts, const std::function<bool(const Setting&)>& chosen) const;
  /// What a Planner plans: this method as its options are now, on a trunk of that description (see nn::trunk()).
  MakeObjective dearest(const std::string& trunk) const;
};

/// @name Where methods agree
/// @{
Setting head_width(int64_t& hidden);         ///< "hidden": of the projection head
Default scaled_lr();                         ///< see defaults.h
Default usual_warmup(std::string in_words);  ///< likewise
/// @}

}  // namespace saccade::ssl
