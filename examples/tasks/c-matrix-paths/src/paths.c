#include <stdio.h>
#include <string.h>

#define MOST 512

static char grid[MOST][MOST + 2];
static int rows, columns;

static int cheapest(int y, int x) {
    int here = grid[y][x] - '0';
    if (y == rows - 1 && x == columns - 1) return here;
    int best = 1 << 30;
    if (y + 1 < rows) { int c = cheapest(y + 1, x); if (c < best) best = c; }
    if (x + 1 < columns) { int c = cheapest(y, x + 1); if (c < best) best = c; }
    return here + best;
}

int main(void) {
    while (rows < MOST && fgets(grid[rows], sizeof grid[rows], stdin)) rows++;
    columns = (int)strcspn(grid[0], "\n");
    printf("%d\n", cheapest(0, 0));
    return 0;
}
