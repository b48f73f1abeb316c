#include <fmt/format.h>
#include <saccade/core/dist/launched.h>
#include <saccade/core/dist/mpi.h>
#include <saccade/kernels/error.h>

#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

namespace saccade::dist {
namespace {

std::optional<int> number(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return std::nullopt;
  const std::string_view all = text;
  int value = 0;
  const auto [end, error] = std::from_chars(all.data(), all.data() + all.size(), value);
  if (error != std::errc{} || end != all.data() + all.size() || value < 0)
    throw Error(fmt::format("{} is \"{}\" in the environment; expected a number from 0", name, all));
  return value;
}

/// A launcher's names for a process's place.
struct Names {
  const char *by, *rank, *size, *local_rank, *local_size;
};
constexpr Names kNames[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    // Of a step alone: the script of a batch job has SLURM_PROCID and SLURM_NTASKS as well, and is one process.
    {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", nullptr},
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
};

}  // namespace

Launched launched() {
  for (const Names& names : kNames) {
    const std::optional<int> rank = number(names.rank), size = number(names.size);
    if (!size || (!rank && *size <= 1)) continue;
    if (!rank)
      throw Error(fmt::format("{} is {} in the environment, but {} is not set: which of them is this process?",
                              names.size, *size, names.rank));
    if (*rank >= *size)
      throw Error(fmt::format("{} is {} in the environment, and {} is {}: they are numbered from 0", names.rank, *rank,
                              names.size, *size));
    Launched place{.rank = *rank, .size = *size, .by = names.by};
    place.local_rank = number(names.local_rank).value_or(0);
    if (names.local_size != nullptr) place.local_size = number(names.local_size).value_or(1);
    return place;
  }
  return {};
}

std::unique_ptr<Communicator> world(Device device, std::chrono::duration<double> limit) {
  const Launched place = launched();
  if (place.size == 1) return alone();
  if (device != Device::cpu)
    throw Error(fmt::format("{} processes on GPUs cannot be joined yet: take one process and one GPU, or --device cpu",
                            place.size));
  const bool through_mpi = place.by == "mpirun" || std::getenv("PMIX_RANK") != nullptr ||
                           std::getenv("PMI_RANK") != nullptr || std::getenv("OMPI_COMM_WORLD_RANK") != nullptr;
  if (!through_mpi)
    throw Error(
        fmt::format("{} says that this is process {} of {}, but on CPUs processes are joined by MPI, which was not "
                    "started with them: start them by mpirun -n {}{}",
                    place.by, place.rank, place.size, place.size, place.by == "srun" ? " or srun --mpi=pmix" : ""));
  if (mpi_version().empty())
    throw Error(
        fmt::format("this is process {} of {}, but this build has no MPI to join them by: install an MPI "
                    "(libopenmpi-dev) and build again, or start one process",
                    place.rank, place.size));
  auto joined = mpi_world(limit);
  if (joined->size() != place.size)
    throw Error(
        fmt::format("{} says that {} processes were started, MPI joins {}: was the program built with another "
                    "MPI than mpirun belongs to ({})?",
                    place.by, place.size, joined->size(), mpi_version()));
  return joined;
}

}  // namespace saccade::dist
