/*
 * Event path -> (kind, guest, device, leaf) the way that the C toolstack goes: a copy of the
 * path, cut at its last slash; what is before that taken apart by sscanf; the kind looked up
 * in a table from its beginning.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kinds[] = {
    "vif", "vbd", "vbd3", "qdisk", "9pfs", "vfb", "vkbd", "qusb", "pci", "console", "vtpm",
    "vusb", "vdispl", "vuart", "pvcalls", "vsnd", "vinput", "virtio", "virtio_disk", "xen_9pfs",
};

struct parsed {
    int kind;
    unsigned domid, devid;
    int leaf; /* 0: state, 1: online, 2: another */
};

static int leaf_of(const char *name)
{
    if (strcmp(name, "state") == 0)
        return 0;
    return strcmp(name, "online") == 0 ? 1 : 2;
}

/* Is the path, which is absolute, that of a node in a device's directory? */
int reference_event_path(const char *event, struct parsed *out)
{
    unsigned own;
    char name[32];
    size_t i;
    int ok = 0;
    char *path = strdup(event), *slash = path ? strrchr(path, '/') : NULL;

    if (slash == NULL)
        goto end;
    *slash = '\0';
    if (sscanf(path, "/local/domain/%u/backend/%31[^/]/%u/%u", &own, name, &out->domid,
               &out->devid) != 4)
        goto end;
    for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i], name) == 0) {
            out->kind = (int)i;
            out->leaf = leaf_of(slash + 1);
            ok = 1;
            break;
        }
end:
    free(path);
    return ok;
}

/* The same for whom only `state` and `online` matter: others are told by their last name. */
int reference_event_path_early(const char *event, struct parsed *out)
{
    const char *slash = strrchr(event, '/');

    if (slash == NULL || leaf_of(slash + 1) == 2)
        return 0;
    return reference_event_path(event, out);
}
