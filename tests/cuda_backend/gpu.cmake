# The same tests with the real libraries and the compiled kernels: ./dev gpu runs them where there is a GPU; elsewhere
# they are skipped. A process each, because a kernel that fails takes its whole process' GPU with it.
add_executable(test_cuda_gpu evaluation.cpp op_table.cpp trainer.cpp training.cpp upload.cpp gpu_main.cpp)
target_link_libraries(test_cuda_gpu PRIVATE saccade_ssl saccade_test_support GTest::gtest)
gtest_discover_tests(test_cuda_gpu TEST_PREFIX gpu. DISCOVERY_TIMEOUT 60
  PROPERTIES LABELS gpu TIMEOUT 600 ENVIRONMENT OMP_NUM_THREADS=1)
