#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/io/npy.h>
#include <saccade/kernels/error.h>

#include <cstring>

#include "support/temporary_folder.h"

namespace saccade::io {
namespace {

using test::complaint;
using test::content_of;
using test::put;
using test::TemporaryFolder;
using testing::HasSubstr;

std::string file_of(const std::string& header, size_t data_bytes) {
  std::string file("\x93NUMPY\x01\0", 8);
  file += static_cast<char>(header.size() & 255);
  file += static_cast<char>(header.size() >> 8);
  return file + header + std::string(data_bytes, '\0');
}

TEST(Npy, WritesTheBytesThatNumPyWrites) {
  // numpy.save of numpy.arange(6, dtype=numpy.float32).reshape(2, 3), numpy 2.4
  std::string expected =
      file_of("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" + std::string(58, ' ') + '\n', 0);
  for (const float value : {0.f, 1.f, 2.f, 3.f, 4.f, 5.f}) expected.append(reinterpret_cast<const char*>(&value), 4);
  const TemporaryFolder folder;
  write_npy(folder / "f.npy", Tensor::from(std::vector<float>{0, 1, 2, 3, 4, 5}, {2, 3}));
  EXPECT_EQ(content_of(folder / "f.npy"), expected);
}

TEST(Npy, ComesBack) {
  const TemporaryFolder folder;
  for (const DType dtype : {DType::f32, DType::f16, DType::i32, DType::i64, DType::u8})
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{2, 3}, Shape{0, 4}, Shape{2, 1, 2}}) {
      const Tensor tensor = Tensor::full(shape, 3.f, dtype);
      write_npy(folder / "f.npy", tensor);
      const Tensor back = read_npy(folder / "f.npy");
      EXPECT_EQ(back.dtype(), dtype);
      EXPECT_EQ(back.shape(), shape);
      EXPECT_TRUE(tensor.bytes() == 0 || std::memcmp(back.raw(), tensor.raw(), tensor.bytes()) == 0);
    }
  EXPECT_THROW(write_npy(folder / "b.npy", Tensor::full({1}, 0.f, DType::bf16)), Error);
}

TEST(Npy, RefusesWhatIsNotOne) {
  const TemporaryFolder folder;
  const auto refusal = [&](const std::string& content) {
    put(folder / "f.npy", content);
    return complaint<Error>([&] { read_npy(folder / "f.npy"); });
  };
  EXPECT_EQ(refusal(file_of("{'shape':(2,),'descr':'<f4','fortran_order':True}", 8)),
            "");  // one dimension has one order
  EXPECT_THAT(refusal(""), HasSubstr("ends at byte 0"));
  EXPECT_THAT(refusal("not a numpy file"), HasSubstr("not a .npy file"));
  EXPECT_THAT(refusal(file_of("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", 8)), HasSubstr("'>f4'"));
  EXPECT_THAT(refusal(file_of("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", 8)), HasSubstr("'|O'"));
  EXPECT_THAT(refusal(file_of("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", 16)), HasSubstr("Fortran"));
  EXPECT_THAT(refusal(file_of("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 7)),
              HasSubstr("needs 8 bytes of data, it has 7"));
  EXPECT_THAT(refusal(file_of("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", 8)),
              HasSubstr("no valid shape"));
  EXPECT_THAT(refusal(file_of("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 4), }", 8)),
              HasSubstr("too large"));
  EXPECT_THAT(refusal(file_of("{'descr': '<f4', 'shape': (2,), }", 8)), HasSubstr("lacks"));
  EXPECT_THAT(refusal(file_of("{'descr': '<f4", 8)), HasSubstr("without an end"));
  const std::string whole = file_of("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 8);
  for (size_t length = 0; length < whole.size(); ++length) EXPECT_NE(refusal(whole.substr(0, length)), "") << length;
}

}  // namespace
}  // namespace saccade::io
