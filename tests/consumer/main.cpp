#include <saccade/kernels/dtype.h>

#include <cstdio>

int main() { std::printf("%d\n", static_cast<int>(saccade::DType::f32)); }
