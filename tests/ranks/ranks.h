#pragma once

#include <saccade/core/dist/communicator.h>
#include <saccade/core/dist/ranks.h>

#include <memory>

namespace saccade::testing {

/// All processes of the test.
dist::Communicator& ranks();

/// Rows of this process's images, of those of a batch, view after view.
inline Tensor own_rows(const Tensor& all, int64_t images) {
  const dist::Share own = dist::share_of(images, ranks().rank(), ranks().size());
  const int64_t views = all.dim(0) / images;
  const Tensor part = Tensor::empty({views * own.images(), all.dim(1)}, all.dtype());
  for (int64_t v = 0; v < views; ++v)
    part.slice(v * own.images(), (v + 1) * own.images())
        .copy_from(all.slice(v * images + own.first, v * images + own.last));
  return part;
}

}  // namespace saccade::testing
