/* The app of the emulated update test, compiled for Arm by `cargo xtask test --all`.
 *
 * It runs from its own tree's folder `bin`: writes which version it is to data/running, then does
 * what `lib/behaviour` says: `ready` (sd_notify READY=1, stays), `crash` (exit 7), `silent`. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void read_line(const char *root, const char *name, char *line, size_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", root, name);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(line, (int)size, file)) {
        perror(path);
        exit(2);
    }
    fclose(file);
    line[strcspn(line, "\n")] = 0;
}

static void notify(const char *text) {
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = name ? strlen(name) : 0;
    if (length == 0 || length >= sizeof address.sun_path) {
        fputs("no NOTIFY_SOCKET\n", stderr);
        exit(3);
    }
    memcpy(address.sun_path, name, length);
    if (name[0] == '@')
        address.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    if (fd < 0 || sendto(fd, text, strlen(text), 0, (struct sockaddr *)&address, size) < 0) {
        perror("READY=1");
        exit(4);
    }
}

int main(int argc, char **argv) {
    char version[64], behaviour[64], path[4096];
    const char *root = argc > 1 ? argv[1] : "..";
    read_line(root, "lib/version", version, sizeof version);
    read_line(root, "lib/behaviour", behaviour, sizeof behaviour);
    printf("an Arm program of %zu bits, version %s\n", 8 * sizeof(void *), version);
    fflush(stdout);
    if (strcmp(behaviour, "crash") == 0)
        return 7;
    snprintf(path, sizeof path, "%s/running", getenv("PYTHEAS_DATA_DIR"));
    FILE *file = fopen(path, "w");
    if (!file || fprintf(file, "%s %zu bits\n", version, 8 * sizeof(void *)) < 0 || fclose(file)) {
        perror(path);
        return 5;
    }
    if (strcmp(behaviour, "silent") != 0)
        notify("READY=1\nSTATUS=at work");
    for (;;)
        pause();
}
