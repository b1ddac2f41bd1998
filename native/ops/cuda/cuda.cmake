# Backends that are plug-ins: libminigpt4_cuda.so, built where nvcc is found and never required, and the same sources through
# the CPU's emulator (native/simt), which tests alone use. ops/cuda_plugin.cpp loads them.
#
#   MINIGPT4_CUDA                 (also an environment variable) auto: where nvcc is found on PATH, in CUDACXX or CUDA_PATH;
#                                 off: never; on: an error where it is not found
#   MINIGPT4_CUDA_ARCHITECTURES   (likewise) "" : those of this machine's devices, else 80 with PTX, which newer devices
#                                 compile when they first run it; "release": what a release carries; or a list for CMake
set(cuda_folder ${CMAKE_CURRENT_LIST_DIR})

# Small files take nvcc longer to begin than to compile: those of a group become one run of it, the others one each. (Two files
# of a group must not have the same name for different things.)
set(MINIGPT4_KERNEL_GROUPS
  "cuda_ops device_memory devices matmul_dx matmul_dx_f32 matmul_quantized matrix products replay staging"
  "elementwise embed loss norm optimizer pack_half pack_quantized pictures rope rows sample"
  "attention_dense attention_paged_few kv"
  "attention_paged matmul_f32 matmul_dw"
  "attention_gradient attention_paged_many")

# What stands in a plug-in and in what loads it must come from the same headers: their types cross the border.
set(interface "")
foreach(header core/arena.h core/dtype.h core/error.h ops/ops.h ops/plugin.h)
  set(path ${CMAKE_SOURCE_DIR}/native/${header})
  file(SHA256 ${path} hash)
  string(APPEND interface ${hash})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
endforeach()
string(SHA256 interface "${interface}")
string(SUBSTRING "${interface}" 0 16 interface)
set(MINIGPT4_INTERFACE_DEFINITION "MINIGPT4_INTERFACE=\"${interface}\"")
set_source_files_properties(${CMAKE_SOURCE_DIR}/native/ops/cuda_plugin.cpp PROPERTIES
  COMPILE_DEFINITIONS "${MINIGPT4_INTERFACE_DEFINITION}")

file(GLOB MINIGPT4_KERNELS CONFIGURE_DEPENDS ${cuda_folder}/*.cu)
# what a plug-in has of the rest of native/, compiled into it once more
set(MINIGPT4_PLUGIN_SOURCES ${cuda_folder}/plugin.cpp ${CMAKE_SOURCE_DIR}/native/core/dtype.cpp
  ${CMAKE_SOURCE_DIR}/native/core/thread_pool.cpp)
set(MINIGPT4_PLUGIN_EXPORTS ${cuda_folder}/exports.map)

# A plug-in exports one function and has its own C++ library inside, as the addon has.
function(minigpt4_plugin target)
  target_compile_definitions(${target} PRIVATE ${MINIGPT4_INTERFACE_DEFINITION})
  target_link_libraries(${target} PRIVATE minigpt4_flags Threads::Threads ${CMAKE_DL_LIBS})
  target_link_options(${target} PRIVATE -Wl,--version-script=${MINIGPT4_PLUGIN_EXPORTS} -Wl,--gc-sections -static-libstdc++)
  set_target_properties(${target} PROPERTIES PREFIX "lib" SUFFIX ".so" LINK_DEPENDS ${MINIGPT4_PLUGIN_EXPORTS})
endfunction()

# The tests of a device's ops, once for each build of the kernels.
file(GLOB MINIGPT4_GPU_TESTS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/test/gpu/*_test.cpp)
set(MINIGPT4_SIMT_TESTS ${MINIGPT4_GPU_TESTS})
list(FILTER MINIGPT4_SIMT_TESTS INCLUDE REGEX "/simt_[^/]*$")  # of the emulator itself
list(FILTER MINIGPT4_GPU_TESTS EXCLUDE REGEX "/simt_[^/]*$")
file(GLOB MINIGPT4_GPU_TEST_FRAME CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/test/gpu/*_case.cpp)
list(APPEND MINIGPT4_GPU_TEST_FRAME ${CMAKE_SOURCE_DIR}/test/native/main.cpp ${CMAKE_SOURCE_DIR}/test/native/ops_case.cpp)
function(minigpt4_gpu_tests target)
  add_executable(${target} EXCLUDE_FROM_ALL ${MINIGPT4_GPU_TEST_FRAME} ${MINIGPT4_GPU_TESTS} ${ARGN})
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/test/gpu)
  target_link_libraries(${target} PRIVATE minigpt4_test_flags)
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
endfunction()

# kept, so that a later configuration that says nothing means the same
set(MINIGPT4_CUDA_default auto)
set(MINIGPT4_CUDA_ARCHITECTURES_default "")
foreach(variable MINIGPT4_CUDA MINIGPT4_CUDA_ARCHITECTURES)
  if(DEFINED ENV{${variable}})
    set(${variable}_default "$ENV{${variable}}")
  endif()
  set(${variable} "${${variable}_default}" CACHE STRING "see native/ops/cuda/cuda.cmake")
endforeach()
string(TOLOWER "${MINIGPT4_CUDA}" wanted)
if(NOT wanted MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "minigpt4: MINIGPT4_CUDA is auto, on or off, found ${MINIGPT4_CUDA}")
endif()

set(compiler "")
if(NOT wanted STREQUAL "off" AND NOT APPLE AND NOT MINIGPT4_SANITIZE)
  set(hints "")
  if(DEFINED ENV{CUDACXX})
    get_filename_component(folder "$ENV{CUDACXX}" DIRECTORY)
    list(APPEND hints "${folder}")
  endif()
  find_program(MINIGPT4_NVCC nvcc HINTS ${hints} ENV CUDA_PATH PATH_SUFFIXES bin)
  if(MINIGPT4_NVCC)
    set(architectures "${MINIGPT4_CUDA_ARCHITECTURES}")
    if(architectures STREQUAL "release")
      set(architectures 80-real 86-real 89-real 90-real 120)
    elseif(architectures STREQUAL "")
      execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
        OUTPUT_VARIABLE found ERROR_QUIET RESULT_VARIABLE status)
      if(status EQUAL 0)
        string(REGEX MATCHALL "[0-9]+\\.[0-9]" found "${found}")
        foreach(capability ${found})
          string(REPLACE "." "" number ${capability})
          if(number GREATER_EQUAL 80)
            list(APPEND architectures ${number}-real)
          endif()
        endforeach()
        list(REMOVE_DUPLICATES architectures)
      endif()
      if(architectures STREQUAL "")
        set(architectures 80)
      endif()
    endif()
    set(CMAKE_CUDA_ARCHITECTURES ${architectures})
    if(NOT CMAKE_CUDA_COMPILER)
      unset(CMAKE_CUDA_COMPILER CACHE)  # an earlier search without success
      set(ENV{CUDACXX} ${MINIGPT4_NVCC})
    endif()
    include(CheckLanguage)
    # in a project apart, so that an nvcc that does not work (a C++ compiler too new for it) leaves this one whole
    check_language(CUDA)
    set(compiler "${CMAKE_CUDA_COMPILER}")
  endif()
endif()

if(compiler)
  enable_language(CUDA)
  # not every CMake knows that nvcc speaks C++20
  foreach(kind STANDARD EXTENSION)
    set(CMAKE_CUDA20_${kind}_COMPILE_OPTION -std=c++20)
  endforeach()
  message(STATUS "CUDA: ${compiler} (plug-in for architectures ${CMAKE_CUDA_ARCHITECTURES})")
  set(sources ${MINIGPT4_KERNELS})
  set(number 0)
  foreach(group ${MINIGPT4_KERNEL_GROUPS})
    math(EXPR number "${number} + 1")
    separate_arguments(group)
    set(includes "")
    foreach(name ${group})
      list(REMOVE_ITEM sources ${cuda_folder}/${name}.cu)
      string(APPEND includes "#include \"ops/cuda/${name}.cu\"\n")
    endforeach()
    set(together ${CMAKE_BINARY_DIR}/kernels_${number}.cu)
    file(CONFIGURE OUTPUT ${together} CONTENT "${includes}" @ONLY)
    list(APPEND sources ${together})
  endforeach()
  add_library(minigpt4_kernels OBJECT EXCLUDE_FROM_ALL ${sources})
  target_include_directories(minigpt4_kernels PRIVATE ${CMAKE_SOURCE_DIR}/native)
  # -fmad=false: fused multiply-adds stand in the source, so that a product and a sum are two roundings here as on the CPU
  target_compile_options(minigpt4_kernels PRIVATE -fmad=false --expt-relaxed-constexpr
    -Xcompiler=-Wall,-Wextra,-Wshadow,-ffp-contract=off,-fvisibility=hidden,-fvisibility-inlines-hidden)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    target_compile_options(minigpt4_kernels PRIVATE --compress-mode=size)
  endif()
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13.0 AND CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.1)
    # no kernel may spill; an assembler that this was not tried with may do as it likes
    target_compile_options(minigpt4_kernels PRIVATE -Xptxas=--warn-on-spills,--warn-on-local-memory-usage
      -Werror=all-warnings)
  endif()

  add_library(minigpt4_cuda MODULE $<TARGET_OBJECTS:minigpt4_kernels> ${MINIGPT4_PLUGIN_SOURCES})
  minigpt4_plugin(minigpt4_cuda)
  set_target_properties(minigpt4_cuda PROPERTIES LINKER_LANGUAGE CUDA CUDA_RESOLVE_DEVICE_SYMBOLS OFF)
  if(TARGET minigpt4)
    add_dependencies(minigpt4 minigpt4_cuda)
    set_target_properties(minigpt4_cuda PROPERTIES
      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_SOURCE_DIR}/build/${CMAKE_BUILD_TYPE})
  else()
    set_target_properties(minigpt4_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/plugins)
  endif()
  if(MINIGPT4_TESTS)
    minigpt4_gpu_tests(minigpt4_gpu_tests_cuda $<TARGET_OBJECTS:minigpt4_kernels>)
    set_target_properties(minigpt4_gpu_tests_cuda PROPERTIES LINKER_LANGUAGE CUDA CUDA_RESOLVE_DEVICE_SYMBOLS OFF)
    add_dependencies(minigpt4_tests minigpt4_cuda)
    target_compile_definitions(minigpt4_tests PRIVATE MINIGPT4_CUDA_FOLDER="$<TARGET_FILE_DIR:minigpt4_cuda>")
  endif()
elseif(wanted STREQUAL "on")
  message(FATAL_ERROR "minigpt4: MINIGPT4_CUDA is on, and there is no nvcc that works on PATH, in CUDACXX or in CUDA_PATH")
elseif(wanted STREQUAL "off")
  message(STATUS "CUDA: left out (MINIGPT4_CUDA=off)")
else()
  message(STATUS "CUDA: no nvcc that works was found (device \"cuda\" needs one)")
endif()

if(NOT compiler AND TARGET minigpt4 AND NOT MINIGPT4_KIT)
  # of an earlier build: it would be found, and refused or, worse, used
  file(REMOVE ${CMAKE_SOURCE_DIR}/build/${CMAKE_BUILD_TYPE}/libminigpt4_cuda.so)
endif()

if(EXISTS ${CMAKE_SOURCE_DIR}/native/simt)  # a package leaves it out
  add_subdirectory(${CMAKE_SOURCE_DIR}/native/simt)
endif()
