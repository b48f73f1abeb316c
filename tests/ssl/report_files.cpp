// The files a run writes for people and tools: TensorBoard events, the log, the progress line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/report/progress_line.h>
#include <saccade/ssl/report/run_log.h>
#include <saccade/ssl/report/tensorboard.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <map>

#include "support/temporary_folder.h"

namespace saccade::ssl {
namespace {

using test::content_of;
using test::put;
using test::TemporaryFolder;
using testing::AllOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

/// CRC-32C a bit at a time, from its definition.
uint32_t plain_crc32c(const std::string& data) {
  uint32_t crc = 0xffffffff;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
  }
  return ~crc;
}

/// A protocol buffer message taken apart: the values of each field, as bytes.
struct Message {
  std::map<int, std::vector<std::string>> fields;

  explicit Message(const std::string& bytes) {
    size_t at = 0;
    const auto varint = [&] {
      uint64_t value = 0;
      for (int shift = 0;; shift += 7) {
        const auto byte = static_cast<unsigned char>(bytes.at(at++));
        value |= static_cast<uint64_t>(byte & 127) << shift;
        if (byte < 128) return value;
      }
    };
    while (at < bytes.size()) {
      const uint64_t key = varint();
      std::string value;
      if ((key & 7) == 0) {
        const uint64_t number = varint();
        value.assign(reinterpret_cast<const char*>(&number), 8);
      } else {
        const size_t length = (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : varint();
        if (at + length > bytes.size()) throw std::runtime_error("a field runs over the end");
        value = bytes.substr(at, length);
        at += length;
      }
      fields[static_cast<int>(key >> 3)].push_back(value);
    }
  }
  const std::string& operator[](int field) const { return fields.at(field).at(0); }
  template <class T>
  T number(int field) const {
    T value{};
    std::memcpy(&value, (*this)[field].data(), sizeof(T));
    return value;
  }
};

template <class T>
T take(std::string& from) {
  T value{};
  std::memcpy(&value, from.data(), sizeof(T));
  from.erase(0, sizeof(T));
  return value;
}

uint32_t masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8; }

/// All events of a file, every checksum compared.
std::vector<Message> events_of(const std::filesystem::path& path) {
  std::vector<Message> events;
  std::string rest = content_of(path);
  while (!rest.empty()) {
    const std::string length_bytes = rest.substr(0, 8);
    const auto length = take<uint64_t>(rest);
    EXPECT_EQ(take<uint32_t>(rest), masked(plain_crc32c(length_bytes)));
    const std::string data = rest.substr(0, length);
    rest.erase(0, length);
    EXPECT_EQ(take<uint32_t>(rest), masked(plain_crc32c(data)));
    events.emplace_back(data);
  }
  return events;
}

TEST(TensorBoard, Crc32cHasItsPublishedCheckValue) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(TensorBoard, AnIndependentReaderFindsWhatWasWritten) {
  const TemporaryFolder folder;
  TensorBoard board(folder / "events");
  board.scalar("loss", 7, 1.25);
  board.scalar("loss", int64_t{1} << 40, -0.5);
  board.image("prototype", 9, {2, 1, 3, {255, 0, 0, 0, 0, 255}, ""});
  // Not closed: what is written is there at once.
  const std::vector<Message> events = events_of(board.path());
  ASSERT_THAT(events, SizeIs(4));
  EXPECT_EQ(events[0][3], "brain.Event:2");
  EXPECT_NEAR(events[0].number<double>(1), static_cast<double>(std::time(nullptr)), 100);
  EXPECT_EQ(events[1].number<int64_t>(2), 7);
  const Message value{Message(events[1][5])[1]};
  EXPECT_EQ(value[1], "loss");
  EXPECT_EQ(value.number<float>(2), 1.25f);
  EXPECT_EQ(events[2].number<int64_t>(2), int64_t{1} << 40);
  const Message image{Message(Message(events[3][5])[1])[4]};
  EXPECT_EQ(image.number<int64_t>(1), 1);
  EXPECT_EQ(image.number<int64_t>(2), 2);
  EXPECT_EQ(image.number<int64_t>(3), 3);
  EXPECT_THAT(image[4], StartsWith("\x89PNG\r\n"));
}

TEST(TensorBoard, FilesAreNamedBySecondsAndHostAndEachSittingHasItsOwn) {
  const TemporaryFolder folder;
  const TensorBoard first(folder.path());
  const TensorBoard second(folder.path(), 500);
  EXPECT_NE(first.path(), second.path());
  for (const std::string& name : folder.names())
    EXPECT_THAT(name, MatchesRegex("events\\.out\\.tfevents\\.[0-9]+\\..+"));
  const std::vector<Message> events = events_of(second.path());
  ASSERT_THAT(events, SizeIs(2));
  EXPECT_EQ(events[1].number<int64_t>(2), 500);
  EXPECT_EQ(Message(events[1][7]).number<int64_t>(1), 1);  // SessionLog START
}

TEST(TensorBoard, SaysWhereItCannotWrite) {
  const TemporaryFolder folder;
  put(folder / "file", "");
  EXPECT_THAT(test::complaint<Error>([&] { TensorBoard(folder / "file"); }), HasSubstr("file"));
}

TEST(Png, HoldsThePixels) {
  const Thumbnail picture{3, 2, 1, {0, 50, 100, 150, 200, 250}, ""};
  const std::string file = encode_png(picture);
  const auto big_endian = [&](size_t at) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(file.at(at + i));
    return value;
  };
  EXPECT_EQ(big_endian(16), 3u);
  EXPECT_EQ(big_endian(20), 2u);
  EXPECT_EQ(file.substr(24, 2), std::string("\x08\0", 2));  // 8 bits, grey
  EXPECT_EQ(big_endian(29), crc32(0, reinterpret_cast<const Bytef*>(file.data()) + 12, 17));
  ASSERT_EQ(file.substr(37, 4), "IDAT");
  std::string rows(8, '\0');
  uLongf bytes = rows.size();
  ASSERT_EQ(uncompress(reinterpret_cast<Bytef*>(rows.data()), &bytes, reinterpret_cast<const Bytef*>(file.data()) + 41,
                       big_endian(33)),
            Z_OK);
  EXPECT_EQ(rows, std::string("\0\0\x32\x64\0\x96\xc8\xfa", 8));
  EXPECT_THAT(file, EndsWith("IEND\xae\x42\x60\x82"));
  EXPECT_THROW(encode_png({3, 2, 1, {0, 1}, ""}), Error);
  EXPECT_THROW(encode_png({1, 1, 2, {0, 1}, ""}), Error);
}

std::vector<int64_t> steps_of(const std::filesystem::path& path) {
  std::vector<int64_t> steps;
  for (const LogLine& line : read_run_log(path)) steps.push_back(line.step);
  return steps;
}

TEST(RunLog, ComesBack) {
  const TemporaryFolder folder;
  RunLog log(folder / "log.jsonl");
  log.write("run", {{"network", std::string("y_400mf \"x\"\n")}});
  log.write("step", 3, {{"loss", 0.1}, {"images", int64_t{256}}, {"lr", std::nan("")}});
  log.write("message", 3, {{"advice", std::vector<std::string>{"one", "two"}}});
  const std::vector<LogLine> lines = read_run_log(folder / "log.jsonl");
  ASSERT_THAT(lines, SizeIs(3));
  EXPECT_EQ(lines[0].kind, "run");
  EXPECT_EQ(lines[0].step, -1);
  EXPECT_EQ(lines[0].texts.at("network"), "y_400mf \"x\"\n");
  EXPECT_EQ(lines[1].step, 3);
  EXPECT_EQ(lines[1].numbers.at("loss"), 0.1);
  EXPECT_EQ(lines[1].numbers.at("images"), 256);
  EXPECT_FALSE(lines[1].numbers.contains("lr"));
  EXPECT_THAT(content_of(folder / "log.jsonl"), HasSubstr("\"lr\":null"));
  EXPECT_THAT(lines[2].lists.at("advice"), ElementsAre("one", "two"));
}

TEST(RunLog, AfterResumingEachStepIsThereOnce) {
  const TemporaryFolder folder;
  {
    RunLog log(folder / "log.jsonl");
    log.write("run", {});
    for (int64_t step = 0; step < 10; ++step) log.write("step", step, {{"sitting", int64_t{1}}});
  }
  std::string content = content_of(folder / "log.jsonl");
  put(folder / "log.jsonl", content.substr(0, content.size() - 7));  // killed while it wrote step 9
  {
    RunLog log(folder / "log.jsonl");
    log.write("notice", {{"text", std::string("going on from 6")}});
    for (int64_t step = 6; step < 12; ++step) log.write("step", step, {{"sitting", int64_t{2}}});
  }
  EXPECT_THAT(steps_of(folder / "log.jsonl"), ElementsAre(-1, 0, 1, 2, 3, 4, 5, -1, 6, 7, 8, 9, 10, 11));
  int64_t broken = -1;
  const std::vector<LogLine> lines = read_run_log(folder / "log.jsonl", &broken);
  EXPECT_EQ(broken, 0);
  EXPECT_EQ(lines[6].numbers.at("sitting"), 1);
  EXPECT_EQ(lines[8].numbers.at("sitting"), 2);
}

TEST(RunLog, ReadingLeavesOutWhatIsNoLine) {
  const TemporaryFolder folder;
  put(folder / "log", "{\"kind\":\"step\",\"step\":1}\nnonsense\n[1]\n{\"step\":2}\n{\"kind\":3}\n{\"kind\":\"cut");
  int64_t broken = 0;
  EXPECT_THAT(read_run_log(folder / "log", &broken), SizeIs(1));
  EXPECT_EQ(broken, 5);
  EXPECT_THROW(read_run_log(folder / "none"), Error);
  EXPECT_THROW(RunLog(folder / "none" / "log"), Error);
}

/// What a ProgressLine of 100 steps writes that takes `seconds` a step.
std::string progress_of(bool terminal, double seconds, int width = 200) {
  const TemporaryFolder folder;
  std::FILE* file = std::fopen((folder / "out").c_str(), "w");
  {
    ProgressLine progress(file, terminal, width);
    for (int64_t i = 1; i <= 100; ++i) {
      progress.step({i, 100, (i + 9) / 10, 10, 256, 2.5, i < 50 ? -1 : 0.861}, 1000 + static_cast<double>(i) * seconds);
      if (i == 60) progress.say("something happened");
    }
  }
  std::fclose(file);
  return content_of(folder / "out");
}

TEST(ProgressLine, ElsewhereAPlainLineEveryTenSeconds) {
  const std::string text = progress_of(false, 0.5);
  EXPECT_THAT(text, AllOf(Not(HasSubstr("\r")), Not(HasSubstr("\033"))));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4 + 1 + 1);  // within 49.5 s; the end; what was said
  EXPECT_THAT(text, StartsWith(" 21 %  step 21/100  epoch 3/10  512 images/s  ETA 40 s  loss 2.5000\n"));
  EXPECT_THAT(text, EndsWith("100 %  step 100/100  epoch 10/10  512 images/s  in 50 s  loss 2.5000  kNN 86.1 %\n"));
}

TEST(ProgressLine, OnATerminalOneLineIsRewrittenAndCutToItsWidth) {
  const std::string text = progress_of(true, 0.1, 60);
  EXPECT_THAT(text, HasSubstr("\033[Ksomething happened\n"));
  EXPECT_THAT(text, HasSubstr("\r[##########..........]"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  EXPECT_GT(std::count(text.begin(), text.end(), '\r'), 40);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line, '\r');)
    EXPECT_LE(line.find("\033[K") == line.npos ? 0 : line.find("\033[K"), 59u);
}

TEST(ProgressLine, DurationsAreForPeople) {
  EXPECT_EQ(duration_text(0.2), "0 s");
  EXPECT_EQ(duration_text(59.6), "1 min 00 s");
  EXPECT_EQ(duration_text(200), "3 min 20 s");
  EXPECT_EQ(duration_text(7500), "2 h 05 min");
  EXPECT_EQ(duration_text(273'600), "3 d 04 h");
}

}  // namespace
}  // namespace saccade::ssl
