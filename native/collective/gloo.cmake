# Sums over processes: what opens the plug-in is part of the engine's library; the plug-in itself is built where Gloo is
# found (Debian and Ubuntu: libgloo-dev). The addon never links it, so its binary runs where there is no Gloo.
target_sources(minigpt4_native PRIVATE ${CMAKE_SOURCE_DIR}/native/collective/collective.cpp)

include(CheckCXXSourceCompiles)
find_path(MINIGPT4_GLOO_INCLUDE gloo/transport/tcp/device.h)
find_library(MINIGPT4_GLOO_LIBRARY gloo)
if(MINIGPT4_GLOO_INCLUDE AND MINIGPT4_GLOO_LIBRARY)
  set(CMAKE_REQUIRED_INCLUDES ${MINIGPT4_GLOO_INCLUDE})
  set(CMAKE_REQUIRED_LIBRARIES ${MINIGPT4_GLOO_LIBRARY} Threads::Threads)
  check_cxx_source_compiles("
    #include <gloo/transport/address.h>
    #include <gloo/transport/context.h>
    #include <gloo/transport/pair.h>
    #include <gloo/transport/tcp/device.h>
    int main() {
      auto device = gloo::transport::tcp::CreateDevice(gloo::transport::tcp::attr(\"127.0.0.1\"));
      auto context = device->createContext(0, 2);
      context->createPair(1)->connect(context->getPair(1)->address().bytes());
      context->getPair(1)->close();
      auto buffer = context->createUnboundBuffer(nullptr, 0);
      buffer->send(1, 0);
      buffer->abortWaitSend();
      return buffer->waitRecv(std::chrono::milliseconds(1)) ? 0 : 1;
    }" MINIGPT4_GLOO_USABLE)
  unset(CMAKE_REQUIRED_INCLUDES)
  unset(CMAKE_REQUIRED_LIBRARIES)
endif()

if(MINIGPT4_GLOO_USABLE)
  message(STATUS "Gloo: ${MINIGPT4_GLOO_LIBRARY} (training with several processes)")
  add_library(minigpt4_gloo MODULE native/collective/gloo/mesh.cpp native/collective/gloo/plugin.cpp)
  target_include_directories(minigpt4_gloo SYSTEM PRIVATE ${MINIGPT4_GLOO_INCLUDE})
  target_link_libraries(minigpt4_gloo PRIVATE minigpt4_flags ${MINIGPT4_GLOO_LIBRARY} Threads::Threads)
  set_target_properties(minigpt4_gloo PROPERTIES PREFIX "lib" SUFFIX ".so")
  if(TARGET minigpt4)
    # beside the addon, which looks for it there
    add_dependencies(minigpt4 minigpt4_gloo)
    set_target_properties(minigpt4_gloo PROPERTIES
      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_SOURCE_DIR}/build/${CMAKE_BUILD_TYPE})
  endif()
  if(TARGET minigpt4_tests)
    add_dependencies(minigpt4_tests minigpt4_gloo)
    target_compile_definitions(minigpt4_tests PRIVATE MINIGPT4_PLUGIN_FOLDER="$<TARGET_FILE_DIR:minigpt4_gloo>")
  endif()
else()
  message(STATUS "Gloo: not found (training with several processes needs libgloo-dev)")
endif()
