// Writing when the machine does not play along: the n-th system call fails, the disk is full, the process is killed.
// The C library's write, fsync and rename are replaced in this program by ones that can be told to fail.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/io/atomic_file.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/core/io/weight_file.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "support/pickles.h"
#include "support/temporary_folder.h"

namespace {

enum class Fault { none, fail, interrupt, write_short, kill };
thread_local Fault fault = Fault::none;
thread_local int calls_until_fault = 0, error_of_fault = 0;

/// Whether this call is the one; kills the process if it is to.
bool is_the_one() {
  if (fault == Fault::none || calls_until_fault-- != 0) return false;
  if (fault == Fault::kill) raise(SIGKILL);
  errno = fault == Fault::interrupt ? EINTR : error_of_fault;
  return true;
}

struct FaultScope {
  FaultScope(Fault kind, int call, int error = 0) {
    fault = kind;
    calls_until_fault = call;
    error_of_fault = error;
  }
  ~FaultScope() { fault = Fault::none; }
  bool reached() const { return calls_until_fault < 0; }
};

}  // namespace

// The C library's headers name the parameters in their own way.
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name)
extern "C" ssize_t write(int fd, const void* data, size_t bytes) {
  if (is_the_one()) {
    if (fault != Fault::write_short) return -1;
    bytes = (bytes + 1) / 2;
  }
  return syscall(SYS_write, fd, data, bytes);
}
extern "C" int fsync(int fd) {
  return is_the_one() && fault != Fault::write_short ? -1 : static_cast<int>(syscall(SYS_fsync, fd));
}
extern "C" int rename(const char* from, const char* to) noexcept {
  return is_the_one() && fault == Fault::fail
             ? -1
             : static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
// NOLINTEND(readability-inconsistent-declaration-parameter-name)

namespace saccade::io {
namespace {

using test::complaint;
using test::content_of;
using test::put;
using test::TemporaryFolder;
using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST(AtomicFile, ReplacesTheOldFileWithTheNew) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "f", "old");
  write_file_atomically(folder / "f", [](AtomicFile& file) {
    file.write("new ");
    file.write("content");
  });
  EXPECT_EQ(content_of(folder / "f"), "new content");
  EXPECT_THAT(folder.names(), ElementsAre("f"));
}

TEST(AtomicFile, WhenTheWriterThrowsNothingHasHappened) {
  const TemporaryFolder folder;
  put(folder / "f", "old");
  EXPECT_EQ(complaint([&] {
              write_file_atomically(folder / "f", [](AtomicFile& file) {
                file.write("new");
                throw Error("no further");
              });
            }),
            "no further");
  EXPECT_EQ(content_of(folder / "f"), "old");
  EXPECT_THAT(folder.names(), ElementsAre("f"));
}

TEST(AtomicFile, SaysWhyItCouldNotWrite) {
  const TemporaryFolder folder;
  const auto refusal = [](const std::filesystem::path& path) {
    return complaint<NotCommitted>([&] { write_file_atomically(path, "x"); });
  };
  EXPECT_THAT(refusal(folder / "none/f"), HasSubstr("none/f: its folder does not exist"));
  EXPECT_THAT(refusal(folder / "f/"), HasSubstr("a folder has that name"));
  put(folder / "file", "");
  EXPECT_THAT(refusal(folder / "file/f"), HasSubstr("its folder is not a folder"));
  std::filesystem::create_directory(folder / "d");
  EXPECT_THAT(refusal(folder / "d"), HasSubstr("a folder has that name"));
  EXPECT_THAT(refusal(folder / std::string(300, 'x')), HasSubstr("name"));
  EXPECT_THAT(folder.names(), ElementsAre("d", "file"));
}

TEST(AtomicFile, TwoWritersOfOneFileAreKeptApart) {
  const TemporaryFolder folder;
  {
    AtomicFile first(folder / "f");
    first.write("first");
    EXPECT_THAT(complaint<NotCommitted>([&] { write_file_atomically(folder / "f", "second"); }),
                HasSubstr("another writer"));
    first.commit();
  }
  EXPECT_EQ(content_of(folder / "f"), "first");
  write_file_atomically(folder / "f", "second");
  EXPECT_EQ(content_of(folder / "f"), "second");
}

TEST(AtomicFile, WhateverCallFailsTheFileIsOldOrNewAndTheErrorTellsWhich) {
  const TemporaryFolder folder;
  int uncertain = 0, not_committed = 0, call = 0;
  for (bool reached = true; reached; ++call) {
    ASSERT_LT(call, 100);
    put(folder / "f", "old");
    std::string lost, unsure;
    {
      const FaultScope faults(Fault::fail, call, ENOSPC);
      try {
        write_file_atomically(folder / "f", "new");
      } catch (const NotCommitted& error) {
        lost = error.what();
      } catch (const DurabilityUncertain& error) {
        unsure = error.what();
      }
      reached = faults.reached();
    }
    EXPECT_THAT(lost, testing::AnyOf("", HasSubstr("f: the disk is full")));
    EXPECT_THAT(unsure, testing::AnyOf("", HasSubstr("durability is uncertain")));
    EXPECT_EQ(!lost.empty() || !unsure.empty(), reached) << call;
    EXPECT_EQ(content_of(folder / "f"), lost.empty() ? "new" : "old") << call;
    EXPECT_THAT(folder.names(), ElementsAre("f"));
    not_committed += !lost.empty();
    uncertain += !unsure.empty();
  }
  EXPECT_EQ(not_committed, 3);  // write, sync, rename
  EXPECT_EQ(uncertain, 1);      // sync of the folder
}

std::vector<NamedTensor> model(float value) {
  return {{"w", Tensor::full({64, 8}, value)}, {"n", Tensor::full({}, value, DType::i64)}};
}

TEST(CheckpointFaults, WhateverCallFailsTheOldOrTheNewOneLoads) {
  for (const int error : {ENOSPC, EIO}) {
    int call = 0;
    for (bool reached = true; reached; ++call) {
      ASSERT_LT(call, 100);
      const TemporaryFolder folder;
      save_checkpoint(folder.path(), 1, model(1.f), "{}", 1);
      std::string text;
      {
        const FaultScope faults(Fault::fail, call, error);
        text = complaint<Error>([&] { save_checkpoint(folder.path(), 2, model(2.f), "{}", 1); });
        reached = faults.reached();
      }
      EXPECT_EQ(!text.empty(), reached) << "call " << call;
      std::vector<std::string> problems;
      const auto latest = latest_checkpoint(folder.path(), problems);
      ASSERT_TRUE(latest) << "call " << call;
      EXPECT_EQ(latest->step, text.find("not committed") == text.npos ? 2 : 1) << "call " << call << ": " << text;
      EXPECT_EQ((*latest)["w"].data<float>()[511], static_cast<float>(latest->step));
      EXPECT_THAT(problems, IsEmpty());
      EXPECT_THAT(folder.names(), Not(testing::Contains(HasSubstr(".tmp"))));
    }
    EXPECT_GE(call, 7);  // length, header, two tensors, two syncs, the rename
  }
}

TEST(CheckpointFaults, InterruptedAndShortWritesAreNoticedByNobody) {
  for (const Fault kind : {Fault::interrupt, Fault::write_short}) {
    int call = 0;
    for (bool reached = true; reached; ++call) {
      ASSERT_LT(call, 100);
      const TemporaryFolder folder;
      {
        const FaultScope faults(kind, call);
        save_checkpoint(folder.path(), 2, model(2.f), "{}", 1);
        reached = faults.reached();
      }
      EXPECT_EQ(load_checkpoint(folder / "step-00000002.ckpt")["w"].data<float>()[511], 2.f);
    }
  }
}

/// Runs the call in a process of its own, which ends without unwinding; returns its wait status.
template <class Call>
int in_child(Call call) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      call();
      _exit(0);
    } catch (...) {
      _exit(1);
    }
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

TEST(CheckpointFaults, KilledAtAnyCallTheOldOrTheNewOneLoadsAndTheNextSaveCleansUp) {
  int call = 0, killed_before_rename = 0;
  for (bool killed = true; killed; ++call) {
    ASSERT_LT(call, 100);
    const TemporaryFolder folder;
    save_checkpoint(folder.path(), 1, model(1.f), "{}", 2);
    const std::vector<NamedTensor> next = model(2.f);
    const int status = in_child([&] {
      const FaultScope faults(Fault::kill, call);
      save_checkpoint(folder.path(), 2, next, "{}", 2);
    });
    killed = WIFSIGNALED(status);
    ASSERT_TRUE(killed || status == 0);
    std::vector<std::string> problems;
    const auto latest = latest_checkpoint(folder.path(), problems);
    ASSERT_TRUE(latest);
    EXPECT_THAT(problems, IsEmpty());
    killed_before_rename += latest->step == 1;
    save_checkpoint(folder.path(), 2, next, "{}", 2);
    EXPECT_THAT(folder.names(), ElementsAre("step-00000001.ckpt", "step-00000002.ckpt"));
  }
  EXPECT_GE(killed_before_rename, 6);
}

TEST(AtomicFile, AFileSizeLimitLeavesTheOldFile) {
  const TemporaryFolder folder;
  put(folder / "f", "old");
  const int status = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    const std::string text =
        complaint<NotCommitted>([&] { write_file_atomically(folder / "f", std::string(5000, 'x')); });
    if (text.find("larger than files may be") == text.npos) throw Error(text);
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(content_of(folder / "f"), "old");
  EXPECT_THAT(folder.names(), ElementsAre("f"));
}

TEST(AtomicFile, AFullDiskLeavesTheOldFile) {
  const TemporaryFolder folder;
  if (mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=64k") != 0)
    GTEST_SKIP() << "a small file system could not be mounted (" << std::strerror(errno)
                 << "): run as root to test this";
  save_checkpoint(folder.path(), 1, model(1.f), "{}", 1);
  const std::string text = complaint<NotCommitted>([&] {
    save_checkpoint(folder.path(), 2, std::vector<NamedTensor>{{"big", Tensor::full({100'000}, 1.f)}}, "{}", 1);
  });
  EXPECT_THAT(text, HasSubstr("step-00000002.ckpt: the disk is full"));
  EXPECT_THAT(folder.names(), ElementsAre("step-00000001.ckpt"));
  EXPECT_EQ(load_checkpoint(folder / "step-00000001.ckpt").step, 1);
  umount(folder.path().c_str());
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kLimitsMemory = false;  // the sanitizers need address space of their own
#else
constexpr bool kLimitsMemory = true;
#endif

/// Runs a parser with 64 MiB and 4 times the file's size to take. 0: it accepts; 2: it refuses; 3: it wants more.
template <class Parse>
int within_memory_for(size_t file_bytes, Parse parse) {
  const int status = in_child([&] {
    size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t most = pages * static_cast<size_t>(getpagesize()) + (size_t{64} << 20) + 4 * file_bytes;
    const rlimit limit = {most, most};
    setrlimit(RLIMIT_AS, &limit);
    bool accepted = false;
    const bool enough =
        complaint<std::bad_alloc>([&] { accepted = complaint<Error>([&] { parse(); }).empty(); }).empty();
    _exit(!enough ? 3 : accepted ? 0 : 2);
  });
  return WEXITSTATUS(status);
}

TEST(Safetensors, AHostileHeaderCostsAtMost64MegabytesAnd4TimesItsSize) {
  if (!kLimitsMemory) GTEST_SKIP() << "address space cannot be limited under this sanitizer";
  const auto repeated = [](size_t bytes, const auto& part) {
    std::string text = "{";
    for (size_t i = 0; text.size() < bytes; ++i) text += part(i);
    return text;
  };
  const size_t bytes = 12'000'000;
  const std::string tensors = repeated(bytes, [](size_t i) {
    return "\"" + std::to_string(i) + "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},";
  });
  const std::string metadata =
      "{\"__metadata__\":" + repeated(bytes, [](size_t i) { return "\"" + std::to_string(i) + "\":\"\","; });
  const std::string shape = "{\"a\":{\"shape\":[1" + repeated(bytes, [](size_t) { return ",1"; }).substr(1);
  const std::string name = "{\"" + std::string(4 << 20, 'a');
  const std::string long_name = name + name;
  const std::string one_name = name + "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}";
  const std::string nested = std::string(bytes, '{');
  std::string whole = tensors;
  whole.back() = '}';
  for (const std::string& header : {tensors, whole, metadata, shape, name, one_name, long_name, nested}) {
    SCOPED_TRACE(header.substr(0, 30));
    const TemporaryFolder folder;
    const uint64_t length = header.size();
    put(folder / "f", std::string(reinterpret_cast<const char*>(&length), 8) + header);
    const bool good = header == whole || header == one_name;
    EXPECT_EQ(within_memory_for(length + 8, [&] { read_safetensors_header(folder / "f"); }), good ? 0 : 2);
  }
}

TEST(WeightFile, AHostileFileCostsAtMost64MegabytesAnd4TimesItsSize) {
  if (!kLimitsMemory) GTEST_SKIP() << "address space cannot be limited under this sanitizer";
  using namespace test::pickled;
  const auto many = [](int count, const auto& part) {
    std::string all;
    for (int i = 0; i < count; ++i) all += part(i);
    return all;
  };
  const auto put_each = [](int i) { return std::string("Nr") + test::bytes_of(static_cast<uint32_t>(i)); };
  const std::string views = many(10'000, [](int) {
    return call("torch._utils", "_rebuild_tensor",
                {storage("FloatStorage", "0", 6), number(0), numbers({90, 100}), numbers({0, 0})});
  });
  std::vector<test::ZipPart> entries;
  for (int i = 0; i < 20'000; ++i) entries.push_back({std::to_string(i), ""});
  const std::vector<std::pair<const char*, std::string>> files = {
      {"lists", file(std::string("(") + std::string(2'000'000, ']') + "t")},
      {"numbers", file(std::string("(") + std::string(6'000'000, 'N') + "t")},
      {"tuples", file(std::string(")") + std::string(2'000'000, '\x85'))},
      {"memo", file(std::string("(") + many(500'000, put_each) + "t")},
      {"names", file(std::string("(") + many(300'000, [](int) { return global("torch", "float32"); }) + "t")},
      {"keys", file(std::string("}(") + many(300'000, [](int i) { return text(std::to_string(i)) + "K\1"; }) + "u")},
      {"text", file(text(std::string(10'000'000, 'a')))},
      {"views", test::torch_file(file(std::string("(") + views + "t"))},
      {"entries", test::zip(entries)},
      {"index", "{\"weight_map\": [" + many(2'000'000, [](int) { return "0,"; }) + "0]}"},
  };
  for (const auto& [what, bytes] : files) {
    SCOPED_TRACE(what);
    const TemporaryFolder folder;
    const auto path = folder / (std::string(what) == "index" ? "model.safetensors.index.json" : "f");
    put(path, bytes);
    EXPECT_THAT(within_memory_for(bytes.size(), [&] { load_weights(path); }), AnyOf(0, 2));
  }
}

}  // namespace
}  // namespace saccade::io
