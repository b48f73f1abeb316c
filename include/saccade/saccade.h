#pragma once

/// The whole library in one include.

#include <saccade/kernels/dtype.h>
