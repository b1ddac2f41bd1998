# Adds the instruction set levels of ops/cpu to minigpt4_native, each file with its own flags. A level is there where
# processor and compiler know it; which of them runs is decided when the program does (levels.cpp).
include(CheckCXXCompilerFlag)
include(CheckCXXSourceCompiles)

set(levels ${CMAKE_CURRENT_LIST_DIR}/levels)
# no errno from sqrt, so that it is an instruction; GCC 12 takes the intrinsics' own "undefined" operands for mistakes
set(level_flags -fno-math-errno -fno-trapping-math -Wno-maybe-uninitialized -Wno-uninitialized)
target_sources(minigpt4_native PRIVATE ${levels}/scalar.cpp)
set_source_files_properties(${levels}/scalar.cpp PROPERTIES COMPILE_OPTIONS "${level_flags}")

# minigpt4_level(NAME DEFINITION "FLAGS"): leaves FLAGS as a list in NAME_flags
function(minigpt4_level name definition)
  check_cxx_compiler_flag("${ARGN}" MINIGPT4_HAS_${definition})
  if(MINIGPT4_HAS_${definition})
    separate_arguments(flags UNIX_COMMAND "${ARGN}")
    target_sources(minigpt4_native PRIVATE ${levels}/${name}.cpp)
    set_source_files_properties(${levels}/${name}.cpp PROPERTIES COMPILE_OPTIONS "${level_flags};${flags}")
    target_compile_definitions(minigpt4_native PRIVATE ${definition})
    set(${name}_flags ${level_flags} ${flags} PARENT_SCOPE)
  endif()
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64|AMD64" AND NOT CMAKE_OSX_ARCHITECTURES MATCHES "arm64")
  minigpt4_level(avx2 MINIGPT4_LEVEL_AVX2 "-mavx2 -mfma -mf16c")
  # an assembler may know less than its compiler
  check_cxx_source_compiles("int main() { asm volatile(\"{vex} vpdpbusd %ymm0, %ymm1, %ymm2\"); }" MINIGPT4_ASSEMBLES_AVX_VNNI)
  if(MINIGPT4_ASSEMBLES_AVX_VNNI)
    minigpt4_level(avx_vnni MINIGPT4_LEVEL_AVX_VNNI "-mavx2 -mfma -mf16c -mavxvnni")
  endif()
  minigpt4_level(avx512 MINIGPT4_LEVEL_AVX512
    "-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mprefer-vector-width=512")
  # Linux has to be asked for the tiles
  check_cxx_source_compiles("int main() { asm volatile(\"tilerelease\"); }" MINIGPT4_ASSEMBLES_AMX)
  if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND MINIGPT4_ASSEMBLES_AMX)
    minigpt4_level(amx MINIGPT4_LEVEL_AMX
      "-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mprefer-vector-width=512 -mamx-tile -mamx-int8 -mamx-bf16")
  endif()
endif()
# on a Mac the architecture asked for may be another than the machine's
if(CMAKE_OSX_ARCHITECTURES MATCHES "arm64"
    OR (NOT CMAKE_OSX_ARCHITECTURES AND CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64"))
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC orders loads far ahead of their use before it gives out registers, and then has too few for a tile's sums
    list(APPEND level_flags -fno-schedule-insns)
  endif()
  minigpt4_level(neon MINIGPT4_LEVEL_NEON "-march=armv8.2-a+dotprod")
  minigpt4_level(neon_i8mm MINIGPT4_LEVEL_NEON_I8MM "-march=armv8.2-a+dotprod+i8mm")
endif()

if(MINIGPT4_TESTS)
  add_executable(ops_bench ${CMAKE_CURRENT_LIST_DIR}/../../../bench/ops_bench.cpp)
  target_link_libraries(ops_bench PRIVATE minigpt4_native)
endif()
