#pragma once

#include <memory>
#include <vector>

#include "simt.h"

/// From what each lane touched to what the warps did.
namespace simt {

/// One access of one lane.
struct Touch {
  uintptr_t address;  ///< within shared memory: the offset in it
  uint64_t site;      ///< of the instruction
  uint16_t bytes;
  Access access;
  bool shared;
};

/// Groups the accesses of the lanes of one warp into instructions: the n-th that each lane makes at a site belong
/// together. Counts them into the report.
void count_warp(std::vector<Touch>* const* lanes, int count, Report& report);

}  // namespace simt
