// Where this code's own binary lies: plug-ins lie beside it.
#pragma once

#include <string>

namespace minigpt4 {

/// The folder of the binary (addon or program) that this code is linked into. Error ERR_INTERNAL where the system does not
/// know it.
std::string binary_folder();

}  // namespace minigpt4
