// Tests that several processes run together: mpirun -n 3 test_ranks. Each computes alone what all compute together.
#include <gtest/gtest.h>
#include <saccade/core/dist/launched.h>

#include "ranks.h"

namespace saccade::testing {

std::unique_ptr<dist::Communicator>& world() {
  static std::unique_ptr<dist::Communicator> all;
  return all;
}
dist::Communicator& ranks() { return *world(); }

}  // namespace saccade::testing

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  using saccade::testing::world;
  world() = saccade::dist::world(saccade::Device::cpu);
  if (world()->rank() > 0)
    delete testing::UnitTest::GetInstance()->listeners().Release(
        testing::UnitTest::GetInstance()->listeners().default_result_printer());
  int failed = RUN_ALL_TESTS();
  // All of them end alike, so that none waits for another.
  for (const auto& of_rank : saccade::dist::numbers_of_all(saccade::testing::ranks(), {failed}))
    failed |= of_rank[0] != 0;
  world().reset();
  return failed;
}
