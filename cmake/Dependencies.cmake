# Every outside package in one place. Debian names: see ./dev.
include(LinkedPackages)

# Headers only, used inside our sources: programs that link the installed library do without them.
find_package(nlohmann_json REQUIRED)
find_package(Eigen3 REQUIRED NO_MODULE)
