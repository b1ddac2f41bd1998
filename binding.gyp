{
  # node-gyp's way in: the build itself is CMake's
  "targets": [{
    "target_name": "cmake",
    "type": "none",
    "actions": [{
      "action_name": "cmake_js",
      "inputs": ["CMakeLists.txt"],
      "outputs": ["<(module_root_dir)/build/<(CONFIGURATION_NAME)/minigpt4.node"],
      "action": ["node", "<(module_root_dir)/scripts/cmake.mjs", "<(CONFIGURATION_NAME)"]
    }]
  }]
}
