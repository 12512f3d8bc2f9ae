//! Which releases devices say they run, counted.

use pytheas_api::{
    InUseView,
    ddi::{ATTRIBUTE_BOARD_APP, ATTRIBUTE_COMPONENT, ATTRIBUTE_RELEASE},
};
use sqlx::{Row, SqlitePool};

use super::Result;

/// What accepted devices run, first the release that most do; of one app and for one platform if
/// they are given. An app on a board at a device's port has the board's platform.
pub(crate) async fn releases(
    db: &SqlitePool,
    name: Option<&str>,
    platform: Option<&str>,
) -> Result<Vec<InUseView>> {
    let said = "
        SELECT said.value AS release, COALESCE(
            (SELECT board.value FROM attributes board WHERE board.device = said.device
              AND board.key = ?1 || substr(said.key, length(?2) + 1)), d.platform) AS platform
        FROM attributes said JOIN devices d ON d.id = said.device
        WHERE d.accepted_ms IS NOT NULL AND (said.key = ?3 OR said.key GLOB ?2 || '*')";
    let sql = format!(
        "SELECT release, platform, count(*) AS devices FROM ({said})
         WHERE (?4 IS NULL OR substr(release, 1, length(?4) + 1) = ?4 || '@')
           AND (?5 IS NULL OR platform = ?5)
         GROUP BY release, platform ORDER BY devices DESC, release, platform LIMIT 1000"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(ATTRIBUTE_BOARD_APP)
        .bind(ATTRIBUTE_COMPONENT)
        .bind(ATTRIBUTE_RELEASE)
        .bind(name)
        .bind(platform)
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| {
            Ok(InUseView {
                release: row.try_get("release")?,
                platform: row.try_get("platform")?,
                devices: u64::try_from(row.try_get::<i64, _>("devices")?).unwrap_or_default(),
            })
        })
        .collect()
}
