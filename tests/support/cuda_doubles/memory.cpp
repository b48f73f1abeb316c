#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>

#include "state.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_doubles {
namespace {

constexpr size_t page = 4096, allocation_alignment = 256;

size_t up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

struct Range {
  size_t bytes;
  std::string made_by, ended_by;
};
struct Chunk {
  size_t offset, bytes;
  bool released = false;
  int mappings = 0;
};
struct Mapping {
  size_t bytes;
  uint64_t chunk;
  bool access = false;
};
struct HostAllocation {
  size_t bytes;
  uint64_t number;
};

struct Memory {
  std::map<uintptr_t, Range> ranges;  // for ever: they are never handed out again
  std::map<uintptr_t, Mapping> mappings;
  std::map<uint64_t, Chunk> chunks;
  std::map<uintptr_t, HostAllocation> host;
  uint64_t next = 1;
  size_t used = 0, file_end = 0;
  int file = -1, open = 0;
  struct sigaction before = {};
};
Memory& memory() {
  static Memory& memory = *new Memory;  // outlives what frees its memory at exit
  return memory;
}

template <class Map>
auto holding(Map& map, uintptr_t address) {
  auto found = map.upper_bound(address);
  if (found == map.begin()) return map.end();
  --found;
  return address < found->first + found->second.bytes ? found : map.end();
}

uintptr_t number_of(const void* address) { return reinterpret_cast<uintptr_t>(address); }
void* pointer_to(uintptr_t address) { return reinterpret_cast<void*>(address); }

/// Accessible bytes from here on, within what was handed out as one.
size_t extent(uintptr_t address) {
  Memory& m = memory();
  const auto range = holding(m.ranges, address);
  if (range == m.ranges.end()) return 0;
  const uintptr_t end = range->first + range->second.bytes;
  uintptr_t at = address;
  for (auto part = holding(m.mappings, at); part != m.mappings.end() && part->second.access && at < end;
       part = holding(m.mappings, at)) {
    at = part->first + part->second.bytes;
  }
  return at - address;
}

/// Where in what was handed out this address lies, or closely behind which of it; empty if it is neither.
std::string place_of(uintptr_t address) {
  const Memory& m = memory();
  const auto next = m.ranges.upper_bound(address);
  if (next == m.ranges.begin()) return "";
  const auto& [begin, range] = *std::prev(next);
  const uintptr_t end = begin + range.bytes;
  if (address >= up(end, page) + page) return "";
  if (address >= end) {
    return fmt::format("{} is {} bytes behind the {} that {} gave", pointer_to(address), address - end + 1, range.bytes,
                       range.made_by);
  }
  if (extent(address) > 0) return fmt::format("{}, which only work in a stream may", pointer_to(address));
  return why_not_readable(pointer_to(address), 1);
}

void on_fault(int, siginfo_t* info, void*) {
  const std::string place = place_of(number_of(info->si_addr));
  if (!place.empty()) {
    const std::string sentence = fmt::format("cuda_doubles: {} touched device memory: {}\n",
                                             memory().open > 0 ? "work in a stream" : "the host", place);
    if (write(STDERR_FILENO, sentence.data(), sentence.size()) < 0) std::abort();
  }
  sigaction(SIGSEGV, &memory().before, nullptr);  // and again, to whom it would have gone
}

void prepare() {
  Memory& m = memory();
  if (m.file >= 0) return;
  m.file = memfd_create("device memory", MFD_CLOEXEC);
  if (m.file < 0) throw Refusal{cudaErrorOperatingSystem, "no memory file"};
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &m.before);
}

/// Gives all accessible mappings this protection, neighbours at once.
void protect_all(int protection) {
  Memory& m = memory();
  for (auto it = m.mappings.begin(); it != m.mappings.end();) {
    const uintptr_t begin = it->first / page * page;
    uintptr_t end = begin;
    const bool access = it->second.access;
    for (; it != m.mappings.end() && it->second.access == access && (end == begin || it->first == end); ++it) {
      end = up(it->first + it->second.bytes, page);
    }
    if (access) mprotect(pointer_to(begin), end - begin, protection);
  }
}

void forget_if_unused(uint64_t handle) {
  Memory& m = memory();
  const auto chunk = m.chunks.find(handle);
  if (!chunk->second.released || chunk->second.mappings > 0) return;
  m.used -= chunk->second.bytes;
  fallocate(m.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(chunk->second.offset),
            static_cast<off_t>(chunk->second.bytes));
  m.chunks.erase(chunk);
}

/// Calls for each mapping of the range; throws unless they are whole and make it up.
void for_whole_mappings(uintptr_t address, size_t bytes, const std::function<void(uintptr_t)>& call) {
  Memory& m = memory();
  std::vector<uintptr_t> parts;
  uintptr_t at = address;
  for (auto part = m.mappings.find(at); part != m.mappings.end() && at < address + bytes; part = m.mappings.find(at)) {
    parts.push_back(at);
    at += part->second.bytes;
  }
  if (at != address + bytes || bytes == 0) {
    throw Refusal{CUDA_ERROR_INVALID_VALUE,
                  fmt::format("{} bytes at {} are not whole mappings side by side", bytes, pointer_to(address))};
  }
  for (const uintptr_t part : parts) call(part);
}

void unmap_one(uintptr_t address) {
  Memory& m = memory();
  const Mapping mapping = m.mappings.at(address);
  m.mappings.erase(address);
  const uintptr_t begin = address / page * page, end = up(address + mapping.bytes, page);
  mmap(pointer_to(begin), end - begin, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(pointer_to(begin), end - begin);
#endif
  --m.chunks.at(mapping.chunk).mappings;
  forget_if_unused(mapping.chunk);
}

}  // namespace

uintptr_t reserve(size_t bytes, size_t alignment, const char* made_by) {
  prepare();
  alignment = std::max(alignment, page);
  // A page is left free behind: what runs over the end faults.
  void* found =
      mmap(nullptr, up(bytes, page) + alignment + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (found == MAP_FAILED) return 0;
  const uintptr_t address = up(number_of(found), alignment);
  memory().ranges[address] = {bytes, made_by, ""};
  return address;
}

void unreserve(uintptr_t address, size_t bytes, const char* made_by, const char* ended_by) {
  Memory& m = memory();
  const auto range = m.ranges.find(address);
  if (range == m.ranges.end() || range->second.made_by != made_by || range->second.bytes != bytes) {
    throw Refusal{CUDA_ERROR_INVALID_VALUE,
                  fmt::format("{} bytes at {} are not what {} gave", bytes, pointer_to(address), made_by)};
  }
  if (!range->second.ended_by.empty()) {
    throw Refusal{CUDA_ERROR_INVALID_VALUE,
                  fmt::format("{} was given back by {} already", pointer_to(address), range->second.ended_by)};
  }
  const auto left = m.mappings.lower_bound(address);
  if (left != m.mappings.end() && left->first < address + bytes) {
    throw Refusal{CUDA_ERROR_INVALID_VALUE, fmt::format("memory is still mapped at {}", pointer_to(left->first))};
  }
  range->second.ended_by = ended_by;
}

uint64_t new_chunk(size_t bytes) {
  prepare();
  Memory& m = memory();
  bytes = up(bytes, page);
  if (m.used + bytes > options().memory_bytes) return 0;
  const auto offset = static_cast<off_t>(m.file_end);
  if (ftruncate(m.file, offset + static_cast<off_t>(bytes)) != 0) return 0;
  void* fresh = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m.file, offset);
  if (fresh == MAP_FAILED) return 0;
  std::memset(fresh, 0xff, bytes);
  munmap(fresh, bytes);
  m.chunks[m.next] = {m.file_end, bytes};
  m.file_end += bytes;
  m.used += bytes;
  return m.next++;
}

void release_chunk(uint64_t handle) {
  const auto chunk = memory().chunks.find(handle);
  if (chunk == memory().chunks.end() || chunk->second.released) {
    throw Refusal{CUDA_ERROR_INVALID_VALUE, fmt::format("{} is no handle of memory, or it was released", handle)};
  }
  chunk->second.released = true;
  forget_if_unused(handle);
}

size_t chunk_bytes(uint64_t handle) {
  const auto chunk = memory().chunks.find(handle);
  if (chunk == memory().chunks.end() || chunk->second.released) {
    throw Refusal{CUDA_ERROR_INVALID_VALUE, fmt::format("{} is no handle of memory, or it was released", handle)};
  }
  return chunk->second.bytes;
}

void map_chunk(uintptr_t address, size_t bytes, uint64_t handle) {
  Memory& m = memory();
  const auto range = holding(m.ranges, address);
  if (range == m.ranges.end() || !range->second.ended_by.empty() ||
      address + bytes > range->first + range->second.bytes) {
    throw Refusal{CUDA_ERROR_INVALID_VALUE, fmt::format("{} bytes at {} are not reserved", bytes, pointer_to(address))};
  }
  const auto next = m.mappings.lower_bound(address);
  if (holding(m.mappings, address) != m.mappings.end() || (next != m.mappings.end() && next->first < address + bytes)) {
    throw Refusal{CUDA_ERROR_INVALID_VALUE,
                  fmt::format("something is mapped within the {} bytes at {}", bytes, pointer_to(address))};
  }
  Chunk& chunk = m.chunks.at(handle);
  const uintptr_t begin = address / page * page, end = up(address + bytes, page);
  if (mmap(pointer_to(begin), end - begin, PROT_NONE, MAP_SHARED | MAP_FIXED, m.file,
           static_cast<off_t>(chunk.offset)) == MAP_FAILED) {
    throw Refusal{CUDA_ERROR_OPERATING_SYSTEM, fmt::format("mmap failed: {}", std::strerror(errno))};
  }
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(pointer_to(address + bytes), end - address - bytes);
#endif
  m.mappings[address] = {bytes, handle};
  ++chunk.mappings;
}

void unmap(uintptr_t address, size_t bytes) { for_whole_mappings(address, bytes, unmap_one); }

void set_access(uintptr_t address, size_t bytes, bool access) {
  for_whole_mappings(address, bytes, [access](uintptr_t part) {
    Mapping& mapping = memory().mappings.at(part);
    mapping.access = access;
    const uintptr_t begin = part / page * page, end = up(part + mapping.bytes, page);
    const bool open = access && memory().open > 0;
    mprotect(pointer_to(begin), end - begin, open ? PROT_READ | PROT_WRITE : PROT_NONE);
  });
}

Allocation allocate(size_t bytes, const char* made_by) {
  const uint64_t chunk = new_chunk(bytes);
  if (chunk == 0) return {};
  const uintptr_t begin = reserve(up(bytes, page), page, made_by);
  if (begin == 0) {
    release_chunk(chunk);
    return {};
  }
  // As near to the end of its last page as the alignment allows.
  const uintptr_t address = begin + up(bytes, page) - up(bytes, allocation_alignment);
  memory().ranges.erase(begin);
  memory().ranges[address] = {bytes, made_by, ""};
  return {address, chunk};
}

void map_allocation(const Allocation& allocation, size_t bytes) {
  map_chunk(allocation.address, bytes, allocation.chunk);
  set_access(allocation.address, bytes, true);
  release_chunk(allocation.chunk);
}

void free_allocation(uintptr_t address, const char* ended_by) {
  Memory& m = memory();
  const auto range = m.ranges.find(address);
  if (range == m.ranges.end() || !range->second.made_by.starts_with("cudaMalloc")) {
    throw Refusal{cudaErrorInvalidValue, fmt::format("{} was not given by cudaMalloc", pointer_to(address))};
  }
  if (!range->second.ended_by.empty()) {
    throw Refusal{cudaErrorInvalidValue,
                  fmt::format("{} was freed by {} already", pointer_to(address), range->second.ended_by)};
  }
  unmap(address, range->second.bytes);
  range->second.ended_by = ended_by;
}

OpenMemory::OpenMemory() {
  if (memory().open++ == 0) protect_all(PROT_READ | PROT_WRITE);
}
OpenMemory::~OpenMemory() {
  if (--memory().open == 0) protect_all(PROT_NONE);
}

bool readable(const void* address, size_t bytes) {
  const std::lock_guard lock(mutex());
  return extent(number_of(address)) >= bytes && is_device_address(address);
}

bool is_device_address(const void* address) {
  const std::lock_guard lock(mutex());
  return holding(memory().ranges, number_of(address)) != memory().ranges.end();
}

std::string why_not_readable(const void* address, size_t bytes) {
  const std::lock_guard lock(mutex());
  Memory& m = memory();
  const uintptr_t at = number_of(address);
  const std::string what = fmt::format("{} bytes at {}: ", bytes, address);
  const auto range = holding(m.ranges, at);
  if (range == m.ranges.end()) return what + "not the device's memory";
  if (!range->second.ended_by.empty()) return what + "freed by " + range->second.ended_by;
  const size_t known = extent(at);
  if (known >= bytes) return what + "nothing wrong";
  const auto stop = holding(m.mappings, at + known);
  if (stop != m.mappings.end()) return what + "mapped, but cuMemSetAccess gave no access";
  if (known == 0) return what + "nothing is mapped there";
  return what + fmt::format("only {} of them are mapped (of the {} that {} gave)", known, range->second.bytes,
                            range->second.made_by);
}

void require_readable(const void* address, size_t bytes, const char* what) {
  if (!readable(address, bytes)) {
    throw Refusal{cudaErrorIllegalAddress, fmt::format("{} is {}", what, why_not_readable(address, bytes))};
  }
}

void* new_host_memory(size_t bytes) {
  void* fresh = std::aligned_alloc(page, up(bytes, page));
  if (!fresh) return nullptr;
  std::memset(fresh, 0xff, bytes);
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(static_cast<char*>(fresh) + bytes, up(bytes, page) - bytes);
#endif
  memory().host[number_of(fresh)] = {bytes, memory().next++};
  return fresh;
}

void free_host_memory(void* address) {
  const auto found = memory().host.find(number_of(address));
  if (found == memory().host.end()) {
    throw Refusal{cudaErrorInvalidValue, fmt::format("{} is no live pinned allocation", address)};
  }
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(address, up(found->second.bytes, page));
#endif
  memory().host.erase(found);
  std::free(address);
}

uint64_t host_allocation_of(const void* address) {
  const auto found = holding(memory().host, number_of(address));
  return found == memory().host.end() ? 0 : found->second.number;
}

void require_pinned(const void* address, size_t bytes, uint64_t allocation, const char* what) {
  const auto found = holding(memory().host, number_of(address));
  if (found == memory().host.end() || found->second.number != allocation) {
    throw Refusal{cudaErrorIllegalAddress, fmt::format("{} is pinned memory at {} that was freed", what, address)};
  }
  if (number_of(address) + bytes > found->first + found->second.bytes) {
    throw Refusal{cudaErrorInvalidValue, fmt::format("{}: {} bytes at {} run over a pinned allocation of {} bytes",
                                                     what, bytes, address, found->second.bytes)};
  }
}

void reset_memory() {
  Memory& m = memory();
  while (!m.mappings.empty()) unmap_one(m.mappings.begin()->first);
  m.chunks.clear();
  m.used = m.file_end = 0;
  if (m.file >= 0 && ftruncate(m.file, 0) != 0) std::abort();
  for (auto& [address, range] : m.ranges) {
    if (range.ended_by.empty()) range.ended_by = "cuda_doubles::reset";
  }
  while (!m.host.empty()) free_host_memory(pointer_to(m.host.begin()->first));
}

void count_memory(Live& live) {
  const Memory& m = memory();
  live.host_allocations = static_cast<int>(m.host.size());
  for (const auto& [address, range] : m.ranges) {
    if (range.ended_by.empty())
      ++(range.made_by.starts_with("cudaMalloc") ? live.device_allocations : live.reservations);
  }
  for (const auto& [address, mapping] : m.mappings) {
    if (!holding(m.ranges, address)->second.made_by.starts_with("cudaMalloc")) ++live.mappings;
  }
  for (const auto& [handle, chunk] : m.chunks) live.chunks += chunk.released ? 0 : 1;
  live.device_bytes = m.used;
}

}  // namespace cuda_doubles
