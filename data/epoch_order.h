#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

/// @file
/// Which sample stands at which place of an epoch. An epoch has a place for each sample of the source, readable or not,
/// so that its length never changes; the place of a sample that cannot be read is filled by another. All of it depends
/// on nothing but the arguments.
namespace saccade::data {

/// A sample that was found unreadable.
struct Unread {
  int64_t epoch, iteration;  ///< in which it was first tried in vain
  std::string reason;
};
using UnreadSamples = std::map<int64_t, Unread>;  ///< by index

/// The places of an epoch (a place has the index of its sample) in the order in which they are taken.
std::vector<uint32_t> order_of_places(int64_t count, uint64_t seed, int64_t epoch, bool shuffle);

/// Who is tried at the place of `sample` when that cannot be read. A random permutation of the source for each epoch
/// and attempt sends each sample to another, so that a block of neighbours that cannot be read is spread over all, and
/// few are drawn twice in one epoch. From the 33rd attempt on one permutation is walked through, so that all samples
/// will have been tried after `count` more.
/// @param attempt  1 for the first that stands in
int64_t stand_in(int64_t count, uint64_t seed, int64_t epoch, int64_t sample, int64_t attempt);

/// Who is shown at the places of samples that were known to be unreadable before the epoch began: epoch after epoch the
/// next ones of a fixed random order of all that can be read, in which those come last that have stood in before.
/// Empty when none is known, or none can be read.
/// @param known  those found in earlier epochs
std::map<int64_t, int64_t> fillers(int64_t count, uint64_t seed, int64_t epoch, const UnreadSamples& known);

}  // namespace saccade::data
