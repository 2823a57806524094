/* The C client library, where it is installed (Debian: libxen-dev). */
#include <stdlib.h>
#include <string.h>
#include <xenstore.h>

/* By the daemon's socket at `path`. */
struct xs_handle *reference_libxenstore_open(const char *path)
{
    if (setenv("XENSTORED_PATH", path, 1) != 0)
        return NULL;
    return xs_open(0);
}

/* Is the node's value `expected`? */
int reference_libxenstore_read(struct xs_handle *handle, const char *path, const char *expected,
                               unsigned expected_len)
{
    unsigned len = 0;
    char *value = xs_read(handle, XBT_NULL, path, &len);
    int same = value != NULL && len == expected_len && memcmp(value, expected, len) == 0;

    free(value);
    return same;
}

void reference_libxenstore_close(struct xs_handle *handle)
{
    xs_close(handle);
}
