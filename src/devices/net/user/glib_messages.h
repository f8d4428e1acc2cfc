#pragma once

namespace crosvm {

/// From now on what libraries below libslirp have to say goes to our log, within limits: their own
/// way of writing it asks for what no policy allows.
void take_glib_messages();

}  // namespace crosvm
