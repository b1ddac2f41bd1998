# Programs that measure a device, and the one that compares it with the emulator (gpu/check.sh runs them). Built by name alone.
#
#   minigpt4_ops_bench, minigpt4_llama_bench      --device cpu, or of a plug-in that lies beside them or in MINIGPT4_PLUGINS
#   minigpt4_conformance_cuda, _simt              gpu/conformance, through nvcc and through the emulator
#   minigpt4_counted_kernels_cuda, _hooks         launches to be counted, on a GPU and in the emulator with its memory report
#
#   MINIGPT4_KIT   the addon and its plug-ins go into a package of this build folder's own, not into build/ (gpu/kit.mjs)
set(gpu_folder ${CMAKE_CURRENT_LIST_DIR})
option(MINIGPT4_KIT "a build for another machine, which leaves build/ as it is" OFF)

add_library(minigpt4_bench STATIC EXCLUDE_FROM_ALL ${gpu_folder}/bench/bench.cpp ${gpu_folder}/bench/random_weights.cpp)
target_link_libraries(minigpt4_bench PUBLIC minigpt4_native)
target_include_directories(minigpt4_bench PUBLIC ${gpu_folder}/bench)

function(minigpt4_gpu_program target)
  add_executable(${target} EXCLUDE_FROM_ALL ${ARGN})
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
  if(NOT APPLE AND NOT MINIGPT4_SANITIZE)
    target_link_options(${target} PRIVATE -static-libstdc++)  # as the plug-ins that it loads
  endif()
endfunction()

foreach(name ops_bench llama_bench)
  minigpt4_gpu_program(minigpt4_${name} ${gpu_folder}/bench/${name}.cpp)
  target_link_libraries(minigpt4_${name} PRIVATE minigpt4_bench)
endforeach()

if(TARGET minigpt4_kernels)
  minigpt4_gpu_program(minigpt4_conformance_cuda ${gpu_folder}/conformance/conformance.cu)
  target_include_directories(minigpt4_conformance_cuda PRIVATE ${CMAKE_SOURCE_DIR}/native)
  target_compile_options(minigpt4_conformance_cuda PRIVATE -fmad=false --expt-relaxed-constexpr)
  minigpt4_gpu_program(minigpt4_counted_kernels_cuda ${gpu_folder}/bench/counted_kernels.cpp
    $<TARGET_OBJECTS:minigpt4_kernels>)
  target_link_libraries(minigpt4_counted_kernels_cuda PRIVATE minigpt4_bench)
  set_target_properties(minigpt4_counted_kernels_cuda PROPERTIES LINKER_LANGUAGE CUDA)
  set_target_properties(minigpt4_conformance_cuda minigpt4_counted_kernels_cuda PROPERTIES CUDA_RESOLVE_DEVICE_SYMBOLS OFF)
endif()

if(TARGET minigpt4_simt_plain)
  # a .cu file is CUDA's in this folder, so what the C++ compiler gets is a file that includes it
  set(source ${CMAKE_BINARY_DIR}/conformance_simt.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "#include \"conformance.cu\"\n")
  minigpt4_gpu_program(minigpt4_conformance_simt ${source})
  target_include_directories(minigpt4_conformance_simt PRIVATE ${gpu_folder}/conformance)
  target_compile_options(minigpt4_conformance_simt PRIVATE -O2 -fcf-protection=none -Wno-unknown-pragmas)
  target_link_libraries(minigpt4_conformance_simt PRIVATE minigpt4_flags
    -Wl,--whole-archive minigpt4_simt_plain -Wl,--no-whole-archive Threads::Threads ${CMAKE_DL_LIBS})
endif()
if(TARGET minigpt4_simt_hooks)
  minigpt4_gpu_program(minigpt4_counted_kernels_hooks ${gpu_folder}/bench/counted_kernels.cpp)
  target_link_libraries(minigpt4_counted_kernels_hooks PRIVATE minigpt4_bench)
  minigpt4_emulate(minigpt4_counted_kernels_hooks hooks)
  set_target_properties(minigpt4_counted_kernels_hooks PROPERTIES ENABLE_EXPORTS ON)  # the report names functions
endif()

if(MINIGPT4_KIT)
  foreach(target minigpt4 minigpt4_gloo minigpt4_cuda minigpt4_simt)
    if(TARGET ${target})
      set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/package/build/Release)
    endif()
  endforeach()
endif()
