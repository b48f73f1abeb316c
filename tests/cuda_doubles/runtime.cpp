#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>
#include <support/cuda_doubles/cuda_doubles.h>

#include <set>
#include <stdexcept>
#include <string>
#include <vector>

// What the doubles of CUDA promise, beyond the faults that they show (host_bugs.cpp).
namespace {

using cuda_doubles::last_complaint;

class CudaDoubles : public ::testing::Test {
 protected:
  CudaDoubles() {
    cuda_doubles::options() = {};
    cuda_doubles::reset();
  }
};

void* allocated(size_t bytes) {
  void* address = nullptr;
  EXPECT_EQ(cudaMalloc(&address, bytes), cudaSuccess);
  return address;
}
cudaStream_t new_stream(unsigned flags = cudaStreamNonBlocking) {
  cudaStream_t stream = nullptr;
  EXPECT_EQ(cudaStreamCreateWithFlags(&stream, flags), cudaSuccess);
  return stream;
}
std::vector<uint8_t> bytes_of(const void* device, size_t bytes) {
  std::vector<uint8_t> host(bytes);
  EXPECT_EQ(cudaMemcpy(host.data(), device, bytes, cudaMemcpyDeviceToHost), cudaSuccess) << last_complaint();
  return host;
}

TEST_F(CudaDoubles, NothingRunsBeforeSomethingWaits) {
  const cudaStream_t stream = new_stream();
  int runs = 0;
  ASSERT_TRUE(cuda_doubles::enqueue(
      stream, [&] { ++runs; }, "count"));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(cudaStreamQuery(stream), cudaErrorNotReady);
  EXPECT_EQ(runs, 0);
  EXPECT_EQ(cuda_doubles::pending(), 1U);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(cudaStreamQuery(stream), cudaSuccess);
}

TEST_F(CudaDoubles, SeedsChooseAmongAllLegalOrders) {
  const auto order_under = [](uint32_t seed) {
    cuda_doubles::options().seed = seed;
    cuda_doubles::reset();
    const cudaStream_t a = new_stream(), b = new_stream();
    cudaEvent_t event = nullptr;
    EXPECT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
    std::string order;
    const auto put = [&](cudaStream_t stream, char name) {
      cuda_doubles::enqueue(
          stream, [&order, name] { order += name; }, "letter");
    };
    put(a, 'p');
    EXPECT_EQ(cudaEventRecord(event, a), cudaSuccess);
    put(a, 'q');
    put(b, 'x');
    EXPECT_EQ(cudaStreamWaitEvent(b, event, 0), cudaSuccess);
    put(b, 'y');
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return order;
  };
  std::set<std::string> seen;
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    const std::string order = order_under(seed);
    EXPECT_EQ(order, order_under(seed));
    seen.insert(order);
  }
  // Of p before q, x before y, p before y.
  EXPECT_EQ(seen, (std::set<std::string>{"pqxy", "pxqy", "pxyq", "xpqy", "xpyq"}));
}

TEST_F(CudaDoubles, TheDefaultStreamWaitsForBlockingStreamsAlone) {
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    cuda_doubles::options().seed = seed;
    cuda_doubles::reset();
    const cudaStream_t blocking = new_stream(cudaStreamDefault), other = new_stream();
    std::string order;
    cuda_doubles::enqueue(
        blocking, [&] { order += 'a'; }, "a");
    cuda_doubles::enqueue(
        other, [&] { order += '-'; }, "-");
    cuda_doubles::enqueue(
        nullptr, [&] { order += 'b'; }, "b");
    cuda_doubles::enqueue(
        blocking, [&] { order += 'c'; }, "c");
    EXPECT_EQ(cudaStreamSynchronize(blocking), cudaSuccess);
    std::erase(order, '-');
    EXPECT_EQ(order, "abc") << "seed " << seed;
  }
}

TEST_F(CudaDoubles, PageableMemoryIsReadAtOnceAndWaitedFor) {
  const cudaStream_t stream = new_stream();
  void* x = allocated(4);
  int host = 7;
  EXPECT_EQ(cudaMemcpyAsync(x, &host, 4, cudaMemcpyHostToDevice, stream), cudaSuccess);
  host = 8;
  EXPECT_EQ(cudaMemcpyAsync(&host, x, 4, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  EXPECT_EQ(host, 7);
}

TEST_F(CudaDoubles, MemoryBeginsAsNaNAndItsAddressesAreNeverGivenTwice) {
  std::set<void*> seen;
  for (int i = 0; i < 100; ++i) {
    void* x = allocated(100);
    EXPECT_TRUE(seen.insert(x).second);
    EXPECT_EQ(bytes_of(x, 100), std::vector<uint8_t>(100, 0xff));
    EXPECT_EQ(cudaMemsetAsync(x, 1, 100, nullptr), cudaSuccess);
    EXPECT_EQ(cudaFree(x), cudaSuccess);
  }
}

TEST_F(CudaDoubles, MemoryEnds) {
  cuda_doubles::options().memory_bytes = 1 << 20;
  void *x = allocated(1 << 19), *y = nullptr;
  EXPECT_EQ(cudaMalloc(&y, (1 << 19) + 1), cudaErrorMemoryAllocation);
  EXPECT_EQ(last_complaint(), "");  // it breaks no contract
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  size_t free = 0, total = 0;
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(free, size_t{1} << 19);
  EXPECT_EQ(total, size_t{1} << 20);
  EXPECT_EQ(cudaFree(x), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&y, (1 << 19) + 1), cudaSuccess);
}

TEST_F(CudaDoubles, CallsFailWhenPlanned) {
  cuda_doubles::fail_next("cudaMalloc", cudaErrorMemoryAllocation, 1);
  cuda_doubles::fail_next("cublasLtCreate", CUBLAS_STATUS_ALLOC_FAILED);
  void* x = nullptr;
  EXPECT_EQ(cudaMalloc(&x, 8), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&x, 8), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&x, 8), cudaSuccess);
  cublasLtHandle_t handle = nullptr;
  EXPECT_EQ(cublasLtCreate(&handle), CUBLAS_STATUS_ALLOC_FAILED);
  EXPECT_EQ(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
}

TEST_F(CudaDoubles, AMachineMayHaveNoDevice) {
  cuda_doubles::options().devices = 0;
  int count = -1;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  EXPECT_STREQ(cudaGetErrorString(cudaErrorNoDevice), "no CUDA-capable device is detected");
}

TEST_F(CudaDoubles, WhatFailsInAStreamStaysAnErrorButThingsCanBeDestroyed) {
  const cudaStream_t stream = new_stream();
  void* x = allocated(8);
  cuda_doubles::enqueue(
      stream, [] { throw std::runtime_error("it broke"); }, "kernel");
  bool after = false;
  cuda_doubles::enqueue(
      stream, [&] { after = true; }, "next");
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
  EXPECT_EQ(last_complaint(), "in a stream, kernel: it broke");
  EXPECT_FALSE(after);
  void* y = nullptr;
  EXPECT_EQ(cudaMalloc(&y, 8), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  cudaFree(x);
  cudaStreamDestroy(stream);
  EXPECT_EQ(cuda_doubles::describe(cuda_doubles::live()), "");
}

TEST_F(CudaDoubles, AsynchronousAllocationsLiveInTheirStream) {
  const cudaStream_t stream = new_stream();
  void* x = nullptr;
  ASSERT_EQ(cudaMallocAsync(&x, 64, stream), cudaSuccess);
  EXPECT_EQ(cudaMemsetAsync(x, 3, 64, stream), cudaSuccess);
  EXPECT_EQ(cudaFreeAsync(x, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess) << last_complaint();
  EXPECT_EQ(cuda_doubles::live().device_bytes, 0U);
  EXPECT_EQ(cudaMemsetAsync(x, 3, 64, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
  EXPECT_NE(last_complaint().find("freed by cudaFreeAsync"), std::string::npos) << last_complaint();
}

/// alpha op(A) op(B) + beta C by the double, against sums in f64; all matrices in one order.
template <class T>
void expect_product(cudaDataType type, cudaDataType out_type, cublasLtOrder_t order, bool transpose_a, bool transpose_b,
                    double tolerance) {
  constexpr uint64_t m = 5, n = 3, k = 7, extra = 2;  // leading dimensions longer than need be
  const float alpha = 0.5f, beta = 2;
  struct Operand {
    uint64_t rows, columns, ld;
    std::vector<float> values;
    void* device;
    cublasLtMatrixLayout_t layout;
  };
  const auto at = [&](const Operand& x, uint64_t row, uint64_t column, bool transposed = false) {
    if (transposed) std::swap(row, column);
    return order == CUBLASLT_ORDER_COL ? column * x.ld + row : row * x.ld + column;
  };
  const auto operand = [&](cudaDataType element, uint64_t rows, uint64_t columns, float first) {
    const bool by_column = order == CUBLASLT_ORDER_COL;
    Operand x{rows, columns, (by_column ? rows : columns) + extra, {}, nullptr, nullptr};
    x.values.resize(x.ld * (by_column ? columns : rows));
    for (size_t i = 0; i < x.values.size(); ++i) x.values[i] = first + 0.25f * static_cast<float>(i % 11);
    if (element == CUDA_R_32F) {
      x.device = allocated(x.values.size() * 4);
      EXPECT_EQ(cudaMemcpy(x.device, x.values.data(), x.values.size() * 4, cudaMemcpyHostToDevice), cudaSuccess);
    } else {
      const std::vector<T> rounded(x.values.begin(), x.values.end());
      x.device = allocated(rounded.size() * sizeof(T));
      EXPECT_EQ(cudaMemcpy(x.device, rounded.data(), rounded.size() * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
    }
    EXPECT_EQ(cublasLtMatrixLayoutCreate(&x.layout, element, rows, columns, static_cast<int64_t>(x.ld)), 0);
    const int32_t value = order;
    EXPECT_EQ(cublasLtMatrixLayoutSetAttribute(x.layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &value, sizeof value), 0);
    return x;
  };
  const Operand a = operand(type, transpose_a ? k : m, transpose_a ? m : k, -1);
  const Operand b = operand(type, transpose_b ? n : k, transpose_b ? k : n, -0.5f);
  const Operand c = operand(out_type, m, n, 1);
  cublasLtHandle_t handle = nullptr;
  ASSERT_EQ(cublasLtCreate(&handle), 0);
  cublasLtMatmulDesc_t problem = nullptr;
  ASSERT_EQ(cublasLtMatmulDescCreate(&problem, CUBLAS_COMPUTE_32F, CUDA_R_32F), 0);
  const int32_t operation_a = transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                operation_b = transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  ASSERT_EQ(cublasLtMatmulDescSetAttribute(problem, CUBLASLT_MATMUL_DESC_TRANSA, &operation_a, 4), 0);
  ASSERT_EQ(cublasLtMatmulDescSetAttribute(problem, CUBLASLT_MATMUL_DESC_TRANSB, &operation_b, 4), 0);
  cublasLtMatmulPreference_t preference = nullptr;
  ASSERT_EQ(cublasLtMatmulPreferenceCreate(&preference), 0);
  cublasLtMatmulHeuristicResult_t chosen{};
  int found = 0;
  ASSERT_EQ(cublasLtMatmulAlgoGetHeuristic(handle, problem, a.layout, b.layout, c.layout, c.layout, preference, 1,
                                           &chosen, &found),
            0)
      << last_complaint();
  EXPECT_EQ(chosen.workspaceSize, 0U);
  const cudaStream_t stream = new_stream();
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(cublasLtMatmul(handle, problem, &alpha, a.device, a.layout, b.device, b.layout, &beta, c.device, c.layout,
                           c.device, c.layout, &chosen.algo, nullptr, 0, stream),
            0)
      << last_complaint();
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess) << last_complaint();

  const size_t size = out_type == CUDA_R_32F ? 4 : sizeof(T);
  const std::vector<uint8_t> raw = bytes_of(c.device, c.values.size() * size);
  for (uint64_t row = 0; row < m; ++row) {
    for (uint64_t column = 0; column < n; ++column) {
      double expected = 0;
      for (uint64_t i = 0; i < k; ++i) {
        expected += double{a.values[at(a, row, i, transpose_a)]} * b.values[at(b, i, column, transpose_b)];
      }
      const size_t place = at(c, row, column);
      expected = alpha * expected + beta * c.values[place];
      const double got = out_type == CUDA_R_32F ? reinterpret_cast<const float*>(raw.data())[place]
                                                : static_cast<float>(reinterpret_cast<const T*>(raw.data())[place]);
      EXPECT_NEAR(got, expected, tolerance * std::abs(expected)) << row << ", " << column;
    }
  }
}

TEST_F(CudaDoubles, ProductsInAllOrdersTransposesAndTypes) {
  for (const cublasLtOrder_t order : {CUBLASLT_ORDER_COL, CUBLASLT_ORDER_ROW}) {
    for (const bool transpose_a : {false, true}) {
      for (const bool transpose_b : {false, true}) {
        expect_product<float>(CUDA_R_32F, CUDA_R_32F, order, transpose_a, transpose_b, 1e-6);
        expect_product<__half>(CUDA_R_16F, CUDA_R_16F, order, transpose_a, transpose_b, 5e-4);
        expect_product<__nv_bfloat16>(CUDA_R_16BF, CUDA_R_16BF, order, transpose_a, transpose_b, 4e-3);
        expect_product<__half>(CUDA_R_16F, CUDA_R_32F, order, transpose_a, transpose_b, 1e-6);
      }
    }
  }
}

TEST_F(CudaDoubles, TheDriversFunctionsComeByNameAndVersion) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
  EXPECT_EQ(cudaGetDriverEntryPointByVersion("cuMemCreate", &function, 12000, cudaEnableDefault, &result), cudaSuccess);
  EXPECT_NE(function, nullptr);
  EXPECT_EQ(cudaGetDriverEntryPointByVersion("cuMemCreate", &function, 10000, cudaEnableDefault, &result), cudaSuccess);
  EXPECT_EQ(result, cudaDriverEntryPointVersionNotSufficent);
  EXPECT_EQ(function, nullptr);
  EXPECT_EQ(cudaGetDriverEntryPointByVersion("cuNoSuch", &function, 12000, cudaEnableDefault, &result), cudaSuccess);
  EXPECT_EQ(result, cudaDriverEntryPointSymbolNotFound);
}

}  // namespace
